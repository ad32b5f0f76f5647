package wire_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync/wire"
)

// What go-imap v2.0.0-beta.8 does wrong, and what must happen instead.

func TestUnaskedFetchDoesNotReplaceABody(t *testing.T) {
	t.Parallel()
	c := opened(t, scripted(t, modern, func(p *peer) {
		p.selects()
		tag := p.want("UID FETCH 7")
		// Another session's change of flags comes first, without a body.
		p.say("* 1 FETCH (UID 7 FLAGS (\\Seen))", "* 2 FETCH (FLAGS (\\Draft))")
		p.say("* 1 FETCH (UID 7 RFC822.SIZE 5 BODY[] {5}", "hello MODSEQ (12))", tag+" OK done")
	}))
	body := ""
	parts := 0
	_, err := c.Fetch(imap.UIDSetNum(7), wire.Items{Size: true, Body: true}, func(m *wire.Message) error {
		parts++
		if m.Body != nil {
			b, err := io.ReadAll(m.Body)
			if m.Size != 5 || m.BodySize != 5 {
				t.Errorf("sizes %d and %d", m.Size, m.BodySize)
			}
			body = string(b)
			return err
		}
		return nil
	}).Wait(t.Context())
	if err != nil || body != "hello" || parts != 3 {
		t.Errorf("body %q in %d parts: %v", body, parts, err)
	}
}

func TestMoveIsNeverEmulated(t *testing.T) {
	t.Parallel()
	c := opened(t, scripted(t, strings.Replace(modern, " MOVE", "", 1), func(p *peer) {
		p.selects()
		p.say(p.want("UID COPY 7") + " NO [OVERQUOTA] full")
		p.ok(p.want("NOOP")) // and nothing else: no STORE, no EXPUNGE
	}))
	_, err := c.Move(imap.UIDSetNum(7), "Archive").Wait(t.Context())
	mustBe(t, err, wire.ErrUnsupported)
	_, err = c.Copy(imap.UIDSetNum(7), "Archive").Wait(t.Context())
	if wire.Code(err) != imap.ResponseCodeOverQuota || !wire.Refused(err) {
		t.Errorf("copy: %v", err)
	}
	if _, err := c.Noop().Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestExpungeNeedsUIDPLUS(t *testing.T) {
	t.Parallel()
	c := opened(t, scripted(t, strings.Replace(modern, " UIDPLUS", "", 1), func(p *peer) {
		p.selects()
		p.ok(p.want("NOOP"))
	}))
	_, err := c.Expunge(imap.UIDSetNum(7)).Wait(t.Context())
	mustBe(t, err, wire.ErrUnsupported)
	if _, err := c.Noop().Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLargeLiteralsDoNotWait(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 100_000)
	c := dial(t, scripted(t, modern, func(p *peer) {
		tag, first, _ := strings.Cut(p.line(), " ")
		if first != `APPEND "INBOX" (\Seen) "29-Feb-2024 12:00:00 +0000" {100000+}` {
			t.Errorf("client says %q", first)
		}
		if p.literal(first) != big {
			t.Error("another body")
		}
		if got := p.literal(p.line()); got != "a: b" {
			t.Errorf("second body %q", got)
		}
		p.line()
		p.say(tag + " OK [APPENDUID 77 4:5] done")
	}))
	date := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	a := c.Append("INBOX")
	for _, body := range []string{big, "a: b"} {
		if err := a.Add(t.Context(), wire.Literal{Flags: []imap.Flag{imap.FlagSeen}, Date: date, Size: int64(len(body)), Body: strings.NewReader(body)}); err != nil {
			t.Fatal(err)
		}
	}
	res, err := a.Finish().Wait(t.Context())
	if err != nil || res.Validity != 77 || len(res.UIDs) != 2 || res.UIDs[1] != 5 {
		t.Errorf("%+v %v", res, err)
	}
}

func TestUnknownResponsesAreSkipped(t *testing.T) {
	t.Parallel()
	c := opened(t, scripted(t, modern, func(p *peer) {
		p.selects()
		tag := p.want("UID FETCH 7")
		p.say("* XPUSH (\"a\" {3}", "b)\" (c d)) tail", "* 9 XNOTE {5}", "12345 ~{2}", "ab", "* VANISHED 3:4")
		p.say("* 1 FETCH (XNEW (1 (2 \"3\")) UID 7 EMAILID (M1) THREADID NIL FLAGS (\\Seen) X.Y {2}", "ab BINARY.SIZE[1] 7)", tag+" OK [XDONE (a b)] done")
	}))
	seen := false
	_, err := c.Fetch(imap.UIDSetNum(7), wire.Items{Flags: true}, func(m *wire.Message) error {
		seen = m.HasFlags && len(m.Flags) == 1 && m.UID == 7
		return nil
	}).Wait(t.Context())
	if err != nil || !seen {
		t.Errorf("seen %v: %v", seen, err)
	}
	if !c.Events().Boxes["INBOX"] {
		t.Error("VANISHED went unnoticed")
	}
}

func TestVanishedEarlier(t *testing.T) {
	t.Parallel()
	c := dial(t, scripted(t, modern, func(p *peer) {
		tag := p.want(`SELECT "INBOX" (QRESYNC (77 400 1:9))`)
		p.say("* 3 EXISTS", "* OK [CLOSED] bye", "* OK [UIDVALIDITY 77] v", "* OK [HIGHESTMODSEQ 500] m",
			"* VANISHED (EARLIER) 9,2:4", "* 1 FETCH (UID 1 FLAGS (\\Seen $x) MODSEQ (499))", tag+" OK [READ-ONLY] done")
	}))
	var changed []imap.UID
	box, err := c.Select("INBOX", wire.SelectOptions{
		Validity: 77, ModSeq: 400, Known: imap.UIDSet{{Start: 1, Stop: 9}},
		Changed: func(m *wire.Message) error { changed = append(changed, m.UID); return nil },
	}).Wait(t.Context())
	if err != nil || box.Vanished.String() != "2:4,9" || len(changed) != 1 || !box.ReadOnly || box.ModSeq != 500 {
		t.Errorf("%+v, changed %v: %v", box, changed, err)
	}
}

func TestOldMailboxDoesNotSpeakForTheNewOne(t *testing.T) {
	t.Parallel()
	c := opened(t, scripted(t, modern, func(p *peer) {
		p.selects()
		tag := p.want(`SELECT "Other"`)
		p.say("* 1 FETCH (UID 7 FLAGS (\\Deleted) MODSEQ (9))", "* VANISHED 1:5", "* OK [CLOSED] c",
			"* 1 EXISTS", "* OK [UIDVALIDITY 5] v", "* VANISHED (EARLIER) 8", tag+" OK [READ-WRITE] done")
	}))
	box, err := c.Select("Other", wire.SelectOptions{Validity: 5, ModSeq: 1, Changed: func(m *wire.Message) error {
		t.Errorf("UID %d of the old mailbox came as one of the new", m.UID)
		return nil
	}}).Wait(t.Context())
	if err != nil || box.Vanished.String() != "8" {
		t.Errorf("vanished %v: %v", box.Vanished, err)
	}
}

func TestStoreTellsWhatItLeftAlone(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"OK", "NO"} {
		c := opened(t, scripted(t, modern, func(p *peer) {
			p.selects()
			tag := p.want(`UID STORE 5,7,9 (UNCHANGEDSINCE 400) +FLAGS.SILENT (\Seen)`)
			p.say("* 1 FETCH (UID 5 MODSEQ (501))", tag+" "+status+" [MODIFIED 7,9] some")
		}))
		res, err := c.Store(imap.UIDSetNum(5, 7, 9), wire.AddFlags, []imap.Flag{imap.FlagSeen}, 400).Wait(t.Context())
		if err != nil || res.Modified.String() != "7,9" || len(res.Updated) != 1 || res.Updated[0].ModSeq != 501 {
			t.Errorf("%s: %+v %v", status, res, err)
		}
	}
}

// After BAD a server may read the rest of a literal as commands.
func TestBadAfterALiteralDropsTheConnection(t *testing.T) {
	t.Parallel()
	c := dial(t, scripted(t, modern, func(p *peer) {
		tag, first, _ := strings.Cut(p.line(), " ")
		p.say(tag + " BAD Invalid INTERNALDATE")
		p.literal(first)
		if rest, err := io.ReadAll(p.r); err != nil && len(rest) > 2 || strings.Contains(string(rest), "NOOP") {
			t.Errorf("after BAD the client went on: %q %v", rest, err)
		}
	}))
	body := "Subject: x\r\n\r\nx DELETE INBOX\r\nx LOGOUT\r\n"
	a := c.Append("INBOX")
	if err := a.Add(t.Context(), wire.Literal{Size: int64(len(body)), Body: strings.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
	_, err := a.Finish().Wait(t.Context())
	mustBe(t, err, wire.ErrInjection)
	if wire.Refused(err) || c.Err() == nil {
		t.Error("the connection is still in use")
	}
	if _, err := c.Noop().Wait(t.Context()); err == nil {
		t.Error("NOOP was answered")
	}
}

func TestNothingGoesOutRaw(t *testing.T) {
	t.Parallel()
	c := opened(t, scripted(t, modern+" CREATE-SPECIAL-USE", func(p *peer) {
		p.selects()
		p.ok(p.want("CREATE \"a&AA0ACg-b LOGOUT \\\"&AAA-\""))
	}))
	ctx := t.Context()
	for _, flag := range []imap.Flag{"a b", "a)\r\nx LOGOUT", "", `\`, "ä", "x]"} {
		_, err := c.Store(imap.UIDSetNum(1), wire.AddFlags, []imap.Flag{flag}, 0).Wait(ctx)
		mustBe(t, err, wire.ErrArgument)
		mustBe(t, c.Append("INBOX").Add(ctx, wire.Literal{Flags: []imap.Flag{flag}, Body: strings.NewReader("")}), wire.ErrArgument)
	}
	mustBe(t, c.Append("INBOX").Add(ctx, wire.Literal{Date: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), Body: strings.NewReader("")}), wire.ErrArgument)
	_, err := c.Create("x", `\A" b`).Wait(ctx)
	mustBe(t, err, wire.ErrArgument)
	if _, err := c.Create("a\r\nb LOGOUT \"\x00", "").Wait(ctx); err != nil {
		t.Error(err)
	}
}

func TestShortBodyEndsTheConnection(t *testing.T) {
	t.Parallel()
	c := dial(t, scripted(t, modern, func(p *peer) {
		_, first, _ := strings.Cut(p.line(), " ")
		p.literal(first) // never complete
		t.Error("the server got a whole literal")
	}))
	err := c.Append("INBOX").Add(t.Context(), wire.Literal{Size: 100, Body: strings.NewReader("too short")})
	mustBe(t, err, wire.ErrUnfinished)
}

// Hostile and broken servers.
func TestHostileServers(t *testing.T) {
	t.Parallel()
	fetch := func(lines ...string) func(p *peer) {
		return func(p *peer) {
			p.selects()
			p.want("UID FETCH")
			p.say(lines...)
			_, _ = io.Copy(io.Discard, p.r)
		}
	}
	long := strings.Repeat("a", 100_000)
	for name, row := range map[string]struct {
		script func(p *peer)
		want   error
	}{
		"a tag that was never used":       {fetch("u999 OK done"), wire.ErrProtocol},
		"a tagged BYE":                    {fetch("u4 BYE done"), wire.ErrProtocol},
		"an unasked continuation":         {fetch("+ go on"), wire.ErrProtocol},
		"no CR":                           {fetch("* 1 FETCH (UID 1)\n* OK x"), wire.ErrProtocol},
		"UID 0":                           {fetch("* 1 FETCH (UID 0 FLAGS ())"), wire.ErrProtocol},
		"a UID beyond 32 bits":            {fetch("* 1 FETCH (UID 4294967296)"), wire.ErrProtocol},
		"a literal beyond all bounds":     {fetch("* 1 FETCH (UID 1 BODY[] {99999999999999}"), wire.ErrProtocol},
		"a literal of impossible length":  {fetch("* 1 FETCH (UID 1 BODY[] {99999999999999999999999999}"), wire.ErrProtocol},
		"a negative literal":              {fetch("* 1 FETCH (UID 1 BODY[] {-1}"), wire.ErrProtocol},
		"nesting":                         {fetch("* 1 FETCH (UID 1 X " + strings.Repeat("(", 5000)), wire.ErrProtocol},
		"flags without end":               {fetch("* 1 FETCH (UID 1 FLAGS (" + strings.Repeat("a ", 10_000)), wire.ErrProtocol},
		"a long word":                     {fetch("* 1 FETCH (UID 1 FLAGS (" + long + "))"), wire.ErrProtocol},
		"a long quoted string":            {fetch(`* 1 FETCH (UID 1 INTERNALDATE "` + long + `")`), wire.ErrProtocol},
		"a date of nonsense":              {fetch(`* 1 FETCH (UID 1 INTERNALDATE "32-Foo-2024 00:00:00 +0000")`), wire.ErrProtocol},
		"a NUL":                           {fetch("* 1 FETCH (UID 1 FLAGS (\x00))"), wire.ErrProtocol},
		"another message's body":          {fetch("* 1 FETCH (BODY[] {1}", "x UID 2)"), wire.ErrProtocol},
		"BYE":                             {func(p *peer) { p.selects(); p.want("UID FETCH"); p.say("* BYE too many") }, wire.ErrClosed},
		"the end in the middle of a body": {func(p *peer) { p.selects(); p.want("UID FETCH"); p.say("* 1 FETCH (UID 1 BODY[] {100}", "abc") }, wire.ErrClosed},
		"a response that never ends":      {func(p *peer) { p.selects(); p.want("UID FETCH"); endless(p, "* X ", long) }, wire.ErrProtocol},
		"a status text that never ends":   {func(p *peer) { p.selects(); p.want("UID FETCH"); endless(p, "* OK ", long) }, wire.ErrProtocol},
		"a set that never ends":           {func(p *peer) { p.selects(); p.want("UID FETCH"); endless(p, "* VANISHED (EARLIER) 1", ",1:4294967295") }, wire.ErrProtocol},
		"a list that never ends": {func(p *peer) {
			p.selects()
			p.want("UID FETCH")
			endless(p, "", `* LIST () "/" x`+"\r\n", "* 1 FETCH (UID 1 FLAGS ())\r\n")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := scripted(t, modern, row.script)
			conf.Limits.LineBytes = 256 << 10
			c := opened(t, conf)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Fetch(imap.UIDSetNum(1), wire.Items{Body: true}, func(m *wire.Message) error {
				if m.Body != nil {
					_, err := io.Copy(io.Discard, m.Body)
					return err
				}
				return nil
			}).Wait(ctx)
			if row.want == nil { // nothing but ctx ends it, and memory stays
				mustBe(t, err, context.DeadlineExceeded)
				return
			}
			mustBe(t, err, row.want)
			if wire.Refused(err) || c.Err() == nil {
				t.Errorf("the connection goes on after %v", err)
			}
		})
	}
}

func endless(p *peer, head string, more ...string) {
	if _, err := io.WriteString(p.conn, head); err != nil {
		panic(errGone)
	}
	for { // until the client goes
		for _, s := range more {
			if _, err := io.WriteString(p.conn, s); err != nil {
				panic(errGone)
			}
		}
	}
}

func TestDeadPeer(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]func(p *peer){
		"silent": func(p *peer) { p.selects(); _, _ = io.Copy(io.Discard, p.r) },
		"dribbling": func(p *peer) {
			p.selects()
			p.want("NOOP")
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if _, err := io.WriteString(p.conn, "*"); err != nil {
					panic(errGone)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := scripted(t, modern, script)
			conf.Timeout = 300 * time.Millisecond
			c := opened(t, conf)
			began := time.Now()
			_, err := c.Noop().Wait(t.Context())
			if err == nil || time.Since(began) > 4*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		})
	}
	t.Run("ctx", func(t *testing.T) {
		t.Parallel()
		c := opened(t, scripted(t, modern, func(p *peer) { p.selects(); _, _ = io.Copy(io.Discard, p.r) }))
		gone := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(gone) })
		_, err := c.Noop().Wait(ctx)
		mustBe(t, err, gone)
	})
}
