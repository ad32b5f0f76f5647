package config

import (
	"errors"
	"fmt"

	"understudy/spamsync"
	"understudy/spamsync/replica"
)

// Redis is the section "spam.redis": where the shared state is, and how it is kept
// the same at both sites.
type Redis struct {
	spamsync.RedisConfig `key:",inline"`
	// Replica is about the copy.
	Replica replica.Config `key:",inline"`
}

// Validate holds the rules between both parts; each has its own besides.
func (r Redis) Validate() error {
	if r.WriteListen == "" {
		return nil
	}
	var errs []error
	if err := replica.Loopback(r.WriteListen); err != nil {
		errs = append(errs, fmt.Errorf("write_listen: %w", err))
	}
	if r.Peer == "" {
		errs = append(errs, errors.New("peer: is missing; write_listen leads to it while the other site is home"))
	}
	if r.WriteListen == r.Replica.GateListen {
		errs = append(errs, errors.New("gate_listen: is the same as write_listen"))
	}
	return errors.Join(errs...)
}

// Replicates says whether this daemon looks after replication.
func (r Redis) Replicates() bool { return r.Address != "" && r.Peer != "" && r.WriteListen != "" }
