package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/durable"
	"understudy/smtp"
)

// Config is the section "queue".
type Config struct {
	// Dir is where the spool lives.
	Dir string `key:"dir" default:"" doc:"Directory of the spool; by default the directory spool in data_dir."`
	// Lifetime bounds the attempts, not the message.
	Lifetime time.Duration `key:"lifetime" default:"720h" doc:"A message that could not be delivered for this long is held and an alarm is raised; it is never dropped."`
	// DomainLifetimes is keyed by domain, in lower case.
	DomainLifetimes map[string]time.Duration `key:"domain_lifetimes" doc:"Lifetimes of single recipient domains, instead of lifetime."`
	// RefusedExpiry 0 keeps refused messages for ever.
	RefusedExpiry time.Duration `key:"refused_expiry" default:"0s" doc:"Refused messages are deleted after this time; 0s is never."`
	// EraseAfter bounds how long bytes outlive their message.
	EraseAfter time.Duration `key:"erase_after" default:"24h" doc:"The bytes of delivered and deleted messages have left the disk after this time."`
	// ReserveBytes is kept free on the file system.
	ReserveBytes int64 `key:"reserve_bytes" default:"1GiB" doc:"Space that is kept free on the spool's file system; below it new mail is answered 452."`
	// MemoryBytes bounds all drafts together.
	MemoryBytes int64 `key:"memory_bytes" default:"64MiB" doc:"Memory for messages that are being received; above it new mail is answered 452."`
	// SpillBytes is the largest body that is kept in memory and in the log.
	SpillBytes int64 `key:"spill_bytes" default:"1MiB" doc:"Bodies larger than this are streamed into files of their own."`
	// SegmentBytes is the size of one segment file.
	SegmentBytes int64 `key:"segment_bytes" default:"64MiB" doc:"Size of one segment of the log; it is allocated in advance."`
	// RetryFirst and RetryMax shape Schedule.
	RetryFirst time.Duration `key:"retry_first" default:"5m" doc:"Wait after the first failed attempt; it doubles with every further one."`
	RetryMax   time.Duration `key:"retry_max" default:"1h" doc:"Longest wait between two attempts."`
	// AllowBodyAccess guards Spool.Body.
	AllowBodyAccess bool `key:"allow_body_access" default:"false" doc:"Lets operators read the bodies of queued messages; each access is logged."`
}

// DefaultConfig returns the defaults, without a directory.
func DefaultConfig() Config {
	return Config{
		Lifetime:     720 * time.Hour,
		EraseAfter:   24 * time.Hour,
		ReserveBytes: 1 << 30,
		MemoryBytes:  64 << 20,
		SpillBytes:   1 << 20,
		SegmentBytes: 64 << 20,
		RetryFirst:   5 * time.Minute,
		RetryMax:     time.Hour,
	}
}

// Validate returns all faults, each with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("queue."+key+": "+format, args...))
	}
	if c.Dir == "" {
		fault("dir", "is missing")
	}
	positive := func(key string, d, least time.Duration) {
		if d < least {
			fault(key, "%v is too short, at least %v", d, least)
		}
	}
	positive("lifetime", c.Lifetime, time.Minute)
	positive("erase_after", c.EraseAfter, time.Minute)
	positive("retry_first", c.RetryFirst, time.Second)
	for domain, d := range c.DomainLifetimes {
		positive("domain_lifetimes."+domain, d, time.Minute)
	}
	if c.RefusedExpiry < 0 {
		fault("refused_expiry", "%v is negative", c.RefusedExpiry)
	}
	if c.RetryMax < c.RetryFirst {
		fault("retry_max", "%v is shorter than retry_first (%v)", c.RetryMax, c.RetryFirst)
	}
	if c.ReserveBytes < 0 {
		fault("reserve_bytes", "%d is negative", c.ReserveBytes)
	}
	if c.SpillBytes < 4<<10 || c.SpillBytes > maxSpillBytes {
		fault("spill_bytes", "%d is not between 4 KiB and %d MiB", c.SpillBytes, maxSpillBytes>>20)
	}
	if c.MemoryBytes < 2*c.SpillBytes {
		fault("memory_bytes", "%d is less than twice spill_bytes (%d)", c.MemoryBytes, c.SpillBytes)
	}
	if c.SegmentBytes < 8*c.SpillBytes || c.SegmentBytes%4096 != 0 {
		fault("segment_bytes", "%d is less than eight times spill_bytes (%d), or no multiple of 4 KiB", c.SegmentBytes, c.SpillBytes)
	}
	return errors.Join(errs...)
}

// maxSpillBytes bounds Config.SpillBytes: a record is handled as a whole.
const maxSpillBytes = 4 << 20

// Deps is what the spool uses of the world. Zero values are fine.
type Deps struct {
	// Logger writes the lines "queued", "delivery" and "removed".
	Logger *slog.Logger
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Alarms is told what needs a person.
	Alarms smtp.Alarms
	// FS is the file system; nil is durable.OS().
	FS durable.FS
	// Free measures the space left for a directory; nil is durable.Free where FS
	// is nil, and "unlimited" otherwise.
	Free func(dir string) (int64, error)
	// NextHop names where the view points, for listings.
	NextHop func() string
	// Bouncer takes what operators bounce; nil refuses the action.
	Bouncer Bouncer

	// noSpare keeps the log from preparing segments in the background, so that
	// tests see the same operations every time.
	noSpare bool
}
