package replica

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// failover moves the writes from the other Redis, which is well, to this one:
// by Redis's own FAILOVER, or where that is not possible by holding writes back
// until both are equal. No acknowledged write is lost.
func (k *Keeper) failover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, failoverLimit)
	defer cancel()
	began := time.Now()
	k.tune(ctx, k.peer, "peer")
	err := k.askFailover(ctx)
	if err != nil {
		k.log.Warn("redis does not fail over by itself", "err", err)
		err = k.handOver(ctx)
	}
	if err == nil {
		k.gate.Close()
		k.log.Info("writes were moved here", "took", time.Since(began))
	}
	return err
}

// failoverPatience is how long Redis's own FAILOVER may take: writes stand still
// meanwhile, and there is another way. FAILOVER waits for the replica's word on its
// offset, which comes once a second; while clients are paused Redis does not ask.
// Longer is no safer: holding writes back takes some 20 ms and loses none either.
const failoverPatience = 200 * time.Millisecond

// myself is this Redis as the other one lists it.
func (k *Keeper) myself(s Seen) (Attached, error) {
	for _, a := range s.Replicas {
		if a.Port == k.localPort && a.Online {
			return a, nil
		}
	}
	return Attached{}, fmt.Errorf("the other Redis lists no replica with port %d that is online", k.localPort)
}

// askFailover has the other Redis hand over.
func (k *Keeper) askFailover(ctx context.Context) error {
	if k.peerAt.TLS != nil {
		return errors.New("it would dial without TLS")
	}
	s := look(ctx, k.peer)
	if !s.Up() {
		return fmt.Errorf("the other Redis: %s %s", s.Trouble, s.Why)
	}
	me, err := k.myself(s)
	if err != nil {
		return err
	}
	if err := k.setMasterAuth(ctx); err != nil {
		return err
	}
	if err := k.peer.Do(ctx, "FAILOVER", "TO", me.IP, strconv.Itoa(me.Port), "TIMEOUT", strconv.FormatInt(failoverPatience.Milliseconds(), 10)).Err(); err != nil {
		return fmt.Errorf("failover: %w", err)
	}
	began := time.Now()
	for {
		here := look(ctx, k.local)
		if here.Master() {
			return nil
		}
		if time.Since(began) > failoverPatience {
			// It may try for ever to reach an address that leads nowhere.
			if err := k.peer.Do(ctx, "FAILOVER", "ABORT").Err(); err != nil {
				k.log.Warn("redis does not abort its failover", "err", err)
			}
			return errors.New("failover: redis did not get there in time; does replica-announce-ip lead to this site?")
		}
		if s := look(ctx, k.peer); s.Up() && s.Failing == "" && s.Role == "master" {
			if again := look(ctx, k.local); again.Master() {
				return nil
			}
			return errors.New("failover: redis gave up")
		}
		if !pause(ctx, 5*time.Millisecond) {
			_ = k.peer.Do(context.WithoutCancel(ctx), "FAILOVER", "ABORT").Err()
			return fmt.Errorf("failover: %w", ctx.Err())
		}
	}
}

// setMasterAuth gives the other Redis, which is to become a replica, the password.
func (k *Keeper) setMasterAuth(ctx context.Context) error {
	if k.password == "" {
		return nil
	}
	if err := k.peer.ConfigSet(ctx, "masterauth", k.password).Err(); err != nil {
		return fmt.Errorf("set masterauth at the other site: %w", err)
	}
	if k.username == "" {
		return nil
	}
	if err := k.peer.ConfigSet(ctx, "masteruser", k.username).Err(); err != nil {
		return fmt.Errorf("set masteruser at the other site: %w", err)
	}
	return nil
}

// handOver holds back writes at the other Redis until this one has everything,
// promotes this one, and makes the other its replica.
func (k *Keeper) handOver(ctx context.Context) error {
	s := look(ctx, k.peer)
	me, err := k.myself(s)
	if err != nil {
		return err
	}
	if err := k.setMasterAuth(ctx); err != nil {
		return err
	}
	defer func() { // also where the answer to the next command is lost
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := k.peer.Do(rctx, "CLIENT", "UNPAUSE").Err(); err != nil {
			k.log.Warn("writes stay held back until redis lets them go", "err", err)
		}
	}()
	held, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := k.peer.Do(held, "CLIENT", "PAUSE", "3000", "WRITE").Err(); err != nil {
		return fmt.Errorf("hold writes back: %w", err)
	}
	for {
		there, here := look(held, k.peer), look(held, k.local)
		if here.Master() {
			return nil // Redis got there after all; what the other took meanwhile is merged
		}
		if there.Up() && here.Up() && here.Now == there.Now && here.LinkUp {
			break
		}
		if !pause(held, 5*time.Millisecond) {
			return errors.New("hand over: this Redis did not get everything in time")
		}
	}
	k.gate.Close()
	if err := k.local.ReplicaOf(held, "NO", "ONE").Err(); err != nil {
		return fmt.Errorf("replicaof no one: %w", err)
	}
	if err := k.peer.ReplicaOf(held, me.IP, strconv.Itoa(me.Port)).Err(); err != nil {
		return fmt.Errorf("replicaof at the other site: %w", err)
	}
	return nil
}

// newMark is a mark for a dataset.
func newMark() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
