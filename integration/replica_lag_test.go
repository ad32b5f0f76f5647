package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/integration/lab"
)

// learnTokens is how many tokens a learned message has.
const learnTokens = 1600

// learnMessage is the learning of one message as it goes over the wire, with the
// key lab-mark last. It is made before the clock starts: the client's work is no lag.
func learnMessage(i int) []byte {
	var b strings.Builder
	command := func(words ...string) {
		fmt.Fprintf(&b, "*%d\r\n", len(words))
		for _, w := range words {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
		}
	}
	command("MULTI")
	for j := range learnTokens {
		key := fmt.Sprintf("RS_%d", (i*7919+j*31)%150_000)
		command("HINCRBY", key, "S", "1")
		command("EXPIRE", key, "3600")
	}
	command("SET", "lab-mark", fmt.Sprint(i))
	command("EXEC")
	return []byte(b.String())
}

// learnReplies is how many lines Redis answers to learnMessage: MULTI, a QUEUED for
// each command, the head of the array, and an answer for each command.
const learnReplies = 1 + 2*(2*learnTokens+1) + 1

// lagLine is one way from a master to its follower: where learns are written, and
// the news that they were executed at the follower.
type lagLine struct {
	conn net.Conn
	r    *bufio.Reader
	news <-chan *redis.Message
	next int
	lags []time.Duration
}

// newLagLine writes to addr and watches follower by its own notifications: nothing
// polls, so that the measuring takes no processor from what is measured.
func newLagLine(t *testing.T, addr string, follower *redis.Client) *lagLine {
	t.Helper()
	ctx := t.Context()
	if err := follower.ConfigSet(ctx, "notify-keyspace-events", "K$").Err(); err != nil {
		t.Fatal(err)
	}
	sub := follower.Subscribe(ctx, "__keyspace@0__:lab-mark")
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = conn.Close(), sub.Close() })
	return &lagLine{conn: conn, r: bufio.NewReaderSize(conn, 256<<10), news: sub.Channel(redis.WithChannelSize(1000))}
}

// learn writes n messages, perSecond a second, and notes when each was executed at
// the follower, counted from its acknowledgement at the master.
func (l *lagLine) learn(ctx context.Context, n, perSecond int) error {
	messages := make([][]byte, n)
	for i := range messages {
		messages[i] = learnMessage(l.next + i)
	}
	l.next += n
	seen := make(chan time.Time, n)
	go func() {
		defer close(seen)
		for range n {
			select {
			case <-l.news:
				seen <- time.Now()
			case <-ctx.Done():
				return
			}
		}
	}()
	written := make([]time.Time, 0, n)
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for _, m := range messages {
		<-tick.C
		if err := l.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := l.conn.Write(m); err != nil {
			return err
		}
		for range learnReplies {
			line, err := l.r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if line[0] == '-' {
				return fmt.Errorf("a learn was refused: %s", line)
			}
		}
		written = append(written, time.Now())
	}
	for _, w := range written {
		at, ok := <-seen
		if !ok {
			return io.ErrUnexpectedEOF
		}
		l.lags = append(l.lags, max(at.Sub(w), 0))
	}
	return nil
}

// quantile of the lags: 0.5 is the median.
func (l *lagLine) quantile(q float64) time.Duration {
	s := slices.Sorted(slices.Values(l.lags))
	return s[min(int(float64(len(s))*q), len(s)-1)]
}

// TestReplicaLag: how long it takes until a learned message counts at the site that
// follows, at 50 learns a second written through the endpoint of that site; in turns
// with a plain REPLICAOF, written to its master without anything of ours.
func TestReplicaLag(t *testing.T) {
	a, b := redisPair(t)
	k := keepSite(t, "b", false, b.Addr, a.Addr, lab.Dir(t), nil)
	k.waitFollowing(t, a.Addr)
	c, d := redisPair(t)
	host, port := splitAddr(t, c.Addr)
	d.Do("REPLICAOF", host, port)
	lab.Wait(t, 10*time.Second, "the plain replica follows", func() error {
		if s := d.Client.Info(t.Context(), "replication").Val(); !strings.Contains(s, "master_link_status:up") {
			return fmt.Errorf("%s", s)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ours, plain := newLagLine(t, k.writes.Options().Addr, b.Client), newLagLine(t, c.Addr, d.Client)
	for name, l := range map[string]*lagLine{"ours": ours, "plain": plain} { // 150,000 keys come to exist
		if err := l.learn(ctx, 50, 50); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		l.lags = nil
	}
	for range 6 {
		if err := ours.learn(ctx, 50, 50); err != nil {
			t.Fatal(err)
		}
		if err := plain.learn(ctx, 50, 50); err != nil {
			t.Fatal(err)
		}
	}
	for name, l := range map[string]*lagLine{"endpoint and gate": ours, "plain REPLICAOF": plain} {
		t.Logf("%s: %d learns of %d tokens: executed at the follower after p50 %v, p90 %v, p99 %v, longest %v", name,
			len(l.lags), learnTokens, l.quantile(0.5), l.quantile(0.9), l.quantile(0.99), l.quantile(1))
	}
	// Other tests run on the same processors. What is ours shows against the plain one.
	if ours, plain := ours.quantile(0.5), plain.quantile(0.5); ours > 3*plain+10*time.Millisecond {
		t.Errorf("median %v, and %v without endpoint and gate", ours, plain)
	}
	if p99, without := ours.quantile(0.99), plain.quantile(0.99); p99 > 250*time.Millisecond+without {
		t.Errorf("p99 is %v, and %v without endpoint and gate", p99, without)
	}
}
