package builtin

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"

	"understudy/smtp"
	"understudy/spamsync"
	"understudy/spamsync/corpus"
	"understudy/spamsync/message"
)

func sampleEnvelope(s corpus.Sample) *smtp.Envelope {
	return &smtp.Envelope{
		ID: s.Name, Received: corpus.Epoch().Add(5 * 24 * time.Hour), Sender: s.Sender, Recipients: []smtp.Recipient{{Address: s.Recipient}},
		Client: smtp.Client{Addr: netip.AddrPortFrom(s.Addr, 25), HELO: s.HELO, ReverseName: s.ReverseName},
	}
}

// tally counts judgements against the truth.
type tally struct{ tp, fp, tn, fn int }

func (c *tally) precision() float64 { return float64(c.tp) / float64(max(c.tp+c.fp, 1)) }
func (c *tally) recall() float64    { return float64(c.tp) / float64(max(c.tp+c.fn, 1)) }

func (c *tally) count(spam, judged bool) {
	switch {
	case spam && judged:
		c.tp++
	case spam:
		c.fn++
	case judged:
		c.fp++
	default:
		c.tn++
	}
}

func teach(tb testing.TB, state spamsync.State, samples []corpus.Sample) {
	tb.Helper()
	c := &spamsync.Classifier{State: state}
	for _, s := range samples {
		m, err := message.Parse(bytes.NewReader(s.Message), message.Limits{})
		if err != nil {
			tb.Fatal(err)
		}
		class := spamsync.Ham
		if s.Spam {
			class = spamsync.Spam
		}
		if _, err := c.Learn(tb.Context(), spamsync.Digest(m), class, spamsync.Tokenize(m)); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestCorpus: two engines with one Redis, trained on one half, judge the other.
// They agree in every symbol and score, and are right as often as stated.
func TestCorpus(t *testing.T) {
	t.Parallel()
	redis := miniredis.RunT(t)
	open := func() *Filter {
		state, closeState, err := spamsync.OpenRedis(spamsync.RedisConfig{Address: redis.Addr(), Timeout: 20 * time.Second, TokenTTL: 240 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = closeState() })
		return newFilter(t, func(c *Config, d *Deps) {
			c.Bayes.MinLearns = 50
			d.State, d.Now = state, func() time.Time { return corpus.Epoch().Add(5 * 24 * time.Hour) }
		})
	}
	a, b := open(), open()
	generated, shaped := corpus.Generate(2026, 400), corpus.Shapes(2026, 400)
	teach(t, a.deps.State, generated[:200])
	teach(t, a.deps.State, shaped[:200])

	for name, half := range map[string][]corpus.Sample{"generated": generated[200:], "real-world shapes": shaped[200:]} {
		var bayes, action tally
		differences := 0
		for _, s := range half {
			var reports [2]Report
			for i, f := range []*Filter{a, b} {
				r, err := f.Explain(t.Context(), sampleEnvelope(s), bytes.NewReader(s.Message))
				if err != nil {
					t.Fatalf("%s: %v", s.Name, err)
				}
				reports[i] = r
			}
			if diff := cmp.Diff(reports[0], reports[1]); diff != "" {
				differences++
				t.Errorf("%s: %s", s.Name, diff)
			}
			bayes.count(s.Spam, reports[0].Bayes.Probability > 0.5)
			action.count(s.Spam, reports[0].Verdict.Score >= a.config.Thresholds.Greylist)
		}
		t.Logf("%s: %d messages, %d differences; bayes: precision %.3f, recall %.3f (%+v); score >= greylist: precision %.3f, recall %.3f (%+v)",
			name, len(half), differences, bayes.precision(), bayes.recall(), bayes, action.precision(), action.recall(), action)
		if bayes.precision() < 0.97 || bayes.recall() < 0.93 {
			t.Errorf("%s: bayes precision %.3f, recall %.3f", name, bayes.precision(), bayes.recall())
		}
	}
}

// TestShapesDoNotCrash: every shape, cut off at many places, gets a verdict.
func TestShapesDoNotCrash(t *testing.T) {
	t.Parallel()
	f := newFilter(t, func(_ *Config, d *Deps) { d.Resolver = &zoneResolver{} })
	for _, s := range corpus.Shapes(5, 140) {
		for cut := len(s.Message); cut > 0; cut -= 1 + len(s.Message)/4 {
			v, err := f.Check(t.Context(), sampleEnvelope(s), bytes.NewReader(s.Message[:cut]))
			if err != nil || v.Engine != Engine {
				t.Fatalf("%s cut at %d: %+v, %v", s.Name, cut, v, err)
			}
		}
	}
}

// big is a message of a head, n times a piece, and a tail, that is nowhere in
// memory as a whole.
type big struct {
	head, piece, tail string
	n                 int64
	at                int64
}

func (b *big) size() int64 { return int64(len(b.head)) + b.n*int64(len(b.piece)) + int64(len(b.tail)) }

func (b *big) Read(p []byte) (int, error) {
	body := int64(len(b.head)) + b.n*int64(len(b.piece))
	var from string
	switch {
	case b.at < int64(len(b.head)):
		from = b.head[b.at:]
	case b.at < body:
		from = b.piece[(b.at-int64(len(b.head)))%int64(len(b.piece)):]
	case b.at < b.size():
		from = b.tail[b.at-body:]
	default:
		return 0, io.EOF
	}
	n := copy(p, from)
	b.at += int64(n)
	return n, nil
}

func (b *big) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size()
	}
	b.at = offset
	return offset, nil
}

// TestBadInput: what is made to cost time or memory gets a clear verdict in
// bounded time and memory.
func TestBadInput(t *testing.T) {
	f := newFilter(t, func(_ *Config, d *Deps) { d.Resolver = &zoneResolver{} })
	const head = "From: a@good.example\r\nTo: b@primary.example\r\nSubject: x\r\nDate: Tue, 24 Nov 2026 11:59:00 +0000\r\nMessage-ID: <1@good.example>\r\n"
	const signed = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=good.example; s=s; h=from; bh=AA==; b=AA==\r\nARC-Seal: i=1; a=rsa-sha256; cv=none; d=a.example; s=s; b=AA==\r\n" +
		"ARC-Message-Signature: i=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=AA==; b=AA==\r\nARC-Authentication-Results: i=1; x; none\r\n"
	// 42 bytes that stand for an archive that unpacks into terabytes.
	bomb := base64.StdEncoding.EncodeToString([]byte("PK\x03\x04\x14\x00\x00\x00\x08\x00 zip bomb \xff\xff\xff\xff\xff\xff\xff\xff"))
	var nested strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	for _, tc := range []struct {
		name   string
		body   *big
		symbol string
	}{
		{"100 MiB of text", &big{head: head + "\r\n", piece: strings.Repeat("some words here\r\n", 64), n: 100 << 20 / (17 * 64)}, ""},
		{"100 MiB, signed and sealed", &big{head: signed + head + "\r\n", piece: strings.Repeat("some words here\r\n", 64), n: 100 << 20 / (17 * 64)}, "ARC_REJECT"},
		{"100 MiB attachment", &big{head: head + "Content-Type: application/zip; name=bomb.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + bomb, piece: strings.Repeat("QUFB", 19) + "\r\n", n: 100 << 20 / 78}, "ATTACH_ARCHIVE"},
		{"100,000 parts", &big{head: head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n", piece: "--b\r\nContent-Type: text/plain\r\n\r\nhttp://x.example/\r\n", n: 100_000}, "MIME_TOO_MANY_PARTS"},
		{"10,000 levels", &big{head: head + nested.String()}, "MIME_TOO_DEEP"},
		{"zip bomb", &big{head: head + "Content-Type: application/zip; name=\"42.zip\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + bomb}, "ATTACH_ARCHIVE"},
		{"header of 1 MiB, one field", &big{head: head + "X: ", piece: "xxxxxxxx", n: 1 << 17, tail: "\r\n\r\nbody\r\n"}, "HEADER_TOO_LONG"},
		{"header of 1 MiB, many fields", &big{head: signed + head, piece: "X: y\r\n", n: 1 << 18, tail: "\r\nbody\r\n"}, "HEADER_TOO_LONG"},
		{"header of 1 MiB, signatures", &big{head: head, piece: signed, n: 3000, tail: "\r\nbody\r\n"}, "HEADER_TOO_LONG"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			debug.FreeOSMemory()
			var before, peak runtime.MemStats
			runtime.ReadMemStats(&before)
			stop, done := make(chan struct{}), make(chan uint64)
			go func() {
				var most uint64
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-stop:
						done <- most
						return
					case <-tick.C:
						runtime.ReadMemStats(&peak)
						most = max(most, peak.HeapAlloc)
					}
				}
			}()
			start := time.Now()
			r, err := f.Explain(t.Context(), envelope(), tc.body)
			took := time.Since(start)
			close(stop)
			most := <-done
			if err != nil {
				t.Fatal(err)
			}
			found := tc.symbol == ""
			for _, s := range r.Findings {
				found = found || s.Name == tc.symbol
			}
			t.Logf("%d bytes: %v, heap grew by %d KiB at most, score %.2f %v", tc.body.size(), took.Round(time.Millisecond), int64(most-min(most, before.HeapAlloc))>>10, r.Verdict.Score, symbols(r))
			if !found || r.Verdict.Engine != Engine {
				t.Errorf("lacks %s: %v", tc.symbol, symbols(r))
			}
			if took > 30*time.Second || most > before.HeapAlloc+64<<20 {
				t.Errorf("%v, %d MiB", took, (most-before.HeapAlloc)>>20)
			}
		})
	}
}

// BenchmarkCheck judges messages of 8 KiB without DNS, with Bayes, reputation and
// greylisting in memory, on all processors.
func BenchmarkCheck(b *testing.B) {
	state := spamsync.NewMemory(nil)
	f := newFilter(b, func(c *Config, d *Deps) {
		c.Bayes.MinLearns = 50
		d.State, d.Greylist = state, spamsync.NewGreylist(state, c.Greylist, nil, nil)
	})
	samples := corpus.Generate(1, 300)
	teach(b, state, samples[:200])
	var bodies [][]byte
	total := 0
	for _, s := range samples[200:] {
		body := s.Message
		for len(body) < 8<<10 { // the text parts come first; more of them follow
			body = append(slices.Clip(body), s.Message...)
		}
		body = body[:8<<10]
		bodies = append(bodies, body)
		total += len(body)
	}
	env := sampleEnvelope(samples[200])
	b.SetBytes(int64(total / len(bodies)))
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := f.Check(b.Context(), env, bytes.NewReader(bodies[i%len(bodies)])); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
