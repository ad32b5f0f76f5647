package lab_test

import (
	"errors"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
)

func mail() lab.Mail {
	return lab.Mail{Seed: 7, From: "sender@ext.test", To: "alice@example.test", MaxBytes: 200 << 10}
}

// TestSink sends through a slow line to the sink and looks at what arrived.
func TestSink(t *testing.T) {
	t.Parallel()
	sink := lab.StartSink(t, lab.SinkConfig{Chunking: true, Keep: true})
	line := lab.StartDelay(t, "", sink.Addr, 20*time.Millisecond)
	ledger := lab.NewLedger()
	start := time.Now()
	client, err := lab.Dial(t.Context(), line.Addr)
	if err != nil {
		t.Fatal(err)
	}
	// Handshake with greeting, and EHLO: two round trips and one.
	if d := time.Since(start); d < 60*time.Millisecond || d > 300*time.Millisecond {
		t.Errorf("connect and EHLO over 20 ms took %v, want 60 ms and little more", d)
	}
	for id := range 20 {
		var m lab.Message
		if id%2 == 1 {
			m = mail().Message(id, lab.Open)
			err = client.SendChunks(m, 30<<10)
		} else {
			m = mail().Message(id, lab.Line)
			err = client.Send(m)
		}
		if err != nil {
			t.Fatal(err)
		}
		ledger.Record(m, nil)
	}
	client.Close()
	if a := ledger.Audit(sink.Bodies()); !a.Intact() || len(a.Twice) > 0 || sink.Count() != 20 {
		t.Errorf("%d arrived: %v", sink.Count(), a)
	}
}

// TestAudit sees loss, change, repetition and invention.
func TestAudit(t *testing.T) {
	t.Parallel()
	ledger := lab.NewLedger()
	var m [6]lab.Message
	for id := range m {
		m[id] = mail().Message(id, lab.Line)
	}
	for _, id := range []int{0, 1, 2} {
		ledger.Record(m[id], nil)
	}
	ledger.Record(m[3], errors.New("cut"))
	a := ledger.Audit(map[int][]lab.Sum{1: {m[0].Sum()}, 2: {m[2].Sum(), m[2].Sum()}, 3: {m[3].Sum()}, 4: {m[4].Sum()}})
	if got := a.String(); got != "lost [0], altered [1], strange [4], twice 1, unasked 1" || a.Intact() {
		t.Error(got)
	}
}

// TestSinkRefuses shows each way in which a next hop can misbehave.
func TestSinkRefuses(t *testing.T) {
	t.Parallel()
	sink := lab.StartSink(t, lab.SinkConfig{})
	sink.SetAnswer(func(stage, _ string) string {
		if stage == "RCPT" {
			return "554 5.7.1 relay access denied"
		}
		return ""
	})
	client, err := lab.Dial(t.Context(), sink.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var reply *lab.ReplyError
	if err := client.Send(mail().Message(1, lab.Line)); !errors.As(err, &reply) || reply.Code != 554 {
		t.Errorf("got %v", err)
	}
	if sink.Count() != 0 {
		t.Error("a refused message was counted")
	}
}

// TestPostfix sends every kind of mail straight to Postfix: what the stories
// compare later must survive this.
func TestPostfix(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "postfix", "smtp-source", "swaks")
	p := lab.NewPostfix(t, lab.PostfixConfig{Domain: "example.test"})
	p.Start()
	ledger := lab.NewLedger()
	sendAll(t, p.Addr, ledger)
	lab.Wait(t, 20*time.Second, "all is delivered", func() error {
		if n := len(p.Delivered()); n < ledger.Acked() {
			return errors.New("still under way")
		}
		return nil
	})
	if a := ledger.Audit(p.Delivered()); !a.Intact() || len(a.Twice) > 0 {
		t.Error(a)
	}
	if n := p.Queued(); n != 0 {
		t.Errorf("%d messages are left in Postfix's queue", n)
	}
	p.Stop()
	if p.Master() != 0 {
		t.Error("Postfix runs on after Stop")
	}
}

func sendAll(t *testing.T, addr string, ledger *lab.Ledger) {
	t.Helper()
	client, err := lab.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for id := range 12 {
		m := mail().Message(id, []lab.Ending{lab.EmptyLine, lab.Line, lab.Line, lab.Open}[id%4])
		var err error
		switch id % 4 {
		case 0:
			err = lab.SourceSend(t.Context(), addr, m)
		case 1:
			err = lab.SwaksSend(t.Context(), addr, m)
		case 2:
			err = client.Send(m)
		case 3:
			err = client.SendChunks(m, 64<<10)
		}
		if err != nil {
			t.Fatal(err)
		}
		ledger.Record(m, nil)
	}
}

// TestDovecot starts, accepts and stops.
func TestDovecot(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "dovecot", "/usr/lib/dovecot/lmtp")
	d := lab.NewDovecot(t)
	d.Start()
	d.Stop()
	d.Start()
}
