package replica

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/spamsync/replica/stream"
)

// How a server is watched: a black hole is noticed within lookEvery + lookWait.
const (
	lookEvery = 200 * time.Millisecond
	lookWait  = 300 * time.Millisecond
)

// datasetKey marks a set of data: a random word that is written once and copied
// with everything else. A Redis that has another, or none any more, is not the one
// that was followed.
const datasetKey = "us:replica:dataset"

// Trouble is why a server cannot be used although it may answer. The zero value
// is none.
type Trouble string

// The troubles.
const (
	NoTrouble     Trouble = ""
	Silent        Trouble = "no answer"
	Unreachable   Trouble = "not reachable"
	Loading       Trouble = "loading its data"
	WrongPassword Trouble = "wrong password"
	NoPermission  Trouble = "no permission"
	NoCommand     Trouble = "command renamed or missing"
	NotRedis      Trouble = "no usable answer"
)

// troubleOf names what an error of the client says.
func troubleOf(err error) Trouble {
	text := err.Error()
	switch {
	case strings.Contains(text, "NOAUTH"), strings.Contains(text, "WRONGPASS"), strings.Contains(text, "invalid password"),
		strings.Contains(text, "AUTH <password> called without"):
		return WrongPassword
	case strings.Contains(text, "NOPERM"):
		return NoPermission
	case strings.Contains(text, "unknown command"):
		return NoCommand
	case strings.Contains(text, "LOADING"):
		return Loading
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(text, "i/o timeout"):
		return Silent
	case strings.Contains(text, "connect"), strings.Contains(text, "dial"), strings.Contains(text, "EOF"), strings.Contains(text, "reset"),
		strings.Contains(text, "broken pipe"), strings.Contains(text, "closed"):
		return Unreachable
	}
	return NotRedis
}

// Attached is a replica that a server lists.
type Attached struct {
	IP     string `json:"ip"`
	Port   int    `json:"port"`
	Online bool   `json:"online"`
	Offset int64  `json:"offset"`
}

// Seen is a server at one moment.
type Seen struct {
	// At is when it was looked at; zero where it never was.
	At time.Time
	// Asked is when the question was sent.
	Asked time.Time
	// Trouble is why the rest is not known.
	Trouble Trouble
	// Why has the server's, or the system's, own words for it.
	Why string
	stream.Info
	// Replicas are those that follow it, journals excluded.
	Replicas []Attached
	// Failing is the state of a FAILOVER that is at work; empty where none is.
	Failing string
	// Syncing says that a full copy is being received.
	Syncing bool
	// Run is another word after every start of the server.
	Run string
	// Keys is how many it holds, in all databases.
	Keys int64
	// Dataset marks what it holds.
	Dataset string
}

// Up says that it answered in time.
func (s Seen) Up() bool { return s.Trouble == NoTrouble && !s.At.IsZero() }

// Master says that it takes writes.
func (s Seen) Master() bool { return s.Up() && s.Role == "master" && s.Failing == "" }

// Replica says that it follows another, and is not on its way to it.
func (s Seen) Replica() bool { return s.Up() && s.Role == "slave" && s.Failing == "" }

// look asks a server for everything in one round trip.
func look(ctx context.Context, c *redis.Client) Seen {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	pipe := c.Pipeline()
	ping := pipe.Ping(ctx)
	info := pipe.Info(ctx, "replication")
	size := pipe.Info(ctx, "keyspace")
	server := pipe.Info(ctx, "server")
	dataset := pipe.Get(ctx, datasetKey)
	_, err := pipe.Exec(ctx)
	s := Seen{At: time.Now(), Asked: asked}
	for _, e := range []error{ping.Err(), info.Err(), size.Err(), server.Err(), dataset.Err()} {
		if e != nil && !errors.Is(e, redis.Nil) {
			s.Trouble, s.Why = troubleOf(e), e.Error()
			return s
		}
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		s.Trouble, s.Why = troubleOf(err), err.Error()
		return s
	}
	if s.Info, err = stream.ParseInfo(info.Val()); err != nil {
		s.Trouble, s.Why = NotRedis, err.Error()
		return s
	}
	s.Keys, s.Dataset = countKeys(size.Val()), dataset.Val()
	s = s.withInfo(info.Val())
	if _, rest, ok := strings.Cut(server.Val(), "\nrun_id:"); ok {
		s.Run, _, _ = strings.Cut(rest, "\r")
	}
	return s
}

// countKeys reads INFO keyspace: "db0:keys=12,expires=3,avg_ttl=0".
func countKeys(text string) int64 {
	var all int64
	for line := range strings.Lines(text) {
		if _, rest, ok := strings.Cut(line, ":keys="); ok && strings.HasPrefix(line, "db") {
			digits, _, _ := strings.Cut(rest, ",")
			n, _ := strconv.ParseInt(digits, 10, 64)
			all += n
		}
	}
	return all
}

// withInfo adds what stream.Info leaves out of INFO replication.
func (s Seen) withInfo(text string) Seen {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		switch {
		case key == "master_failover_state" && value != "no-failover":
			s.Failing = value
		case key == "master_sync_in_progress":
			s.Syncing = value == "1"
		case strings.HasPrefix(key, "slave") && strings.HasPrefix(value, "ip="):
			if a := attached(value); a.Port != stream.AnnouncedPort {
				s.Replicas = append(s.Replicas, a)
			}
		}
	}
	return s
}

func attached(text string) Attached {
	var a Attached
	for field := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "ip":
			a.IP = value
		case "port":
			a.Port, _ = strconv.Atoi(value)
		case "state":
			a.Online = value == "online"
		case "offset":
			a.Offset, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	return a
}
