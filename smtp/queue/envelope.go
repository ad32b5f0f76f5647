package queue

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"understudy/smtp"
)

// appendEnvelope appends env as encoding/json writes it, several times as fast:
// it is part of every Commit. A test holds it to every field of the type.
func appendEnvelope(b []byte, env *smtp.Envelope) ([]byte, error) {
	w := jsonWriter{b: append(b, `{"id":`...)}
	w.string(env.ID)
	w.key(`,"received":`)
	w.time(env.Received)
	w.key(`,"client":{"addr":"`)
	w.b = env.Client.Addr.AppendTo(w.b)
	w.b = append(w.b, '"')
	w.optional(`,"helo":`, env.Client.HELO)
	w.optional(`,"rdns":`, env.Client.ReverseName)
	w.optional(`,"proto":`, env.Client.Protocol)
	w.optional(`,"tls":`, env.Client.TLS)
	w.optional(`,"user":`, env.Client.User)
	w.flag(`,"peer":true`, env.Client.Peer)
	w.key(`},"sender":`)
	w.string(env.Sender)
	w.key(`,"recipients":[`)
	for i := range env.Recipients {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.recipient(&env.Recipients[i])
	}
	w.b = append(w.b, ']')
	w.optional(`,"body":`, env.Body)
	w.flag(`,"smtputf8":true`, env.SMTPUTF8)
	w.flag(`,"requiretls":true`, env.RequireTLS)
	w.optional(`,"ret":`, env.Return)
	w.optional(`,"envid":`, env.EnvelopeID)
	w.optional(`,"route":`, env.Route)
	w.key(`,"size":`)
	w.b = strconv.AppendInt(w.b, env.SizeBytes, 10)
	if env.Verdict != nil {
		text, err := json.Marshal(env.Verdict)
		if err != nil {
			return nil, fmt.Errorf("encode verdict: %w", err)
		}
		w.key(`,"verdict":`)
		w.b = append(w.b, text...)
	}
	w.b = append(w.b, '}')
	return w.b, w.err
}

type jsonWriter struct {
	b   []byte
	err error
}

func (w *jsonWriter) key(text string) { w.b = append(w.b, text...) }

func (w *jsonWriter) optional(key, value string) {
	if value != "" {
		w.key(key)
		w.string(value)
	}
}

func (w *jsonWriter) flag(text string, set bool) {
	if set {
		w.key(text)
	}
}

func (w *jsonWriter) time(t time.Time) {
	w.b = append(w.b, '"')
	b, err := t.AppendText(w.b)
	if err != nil {
		w.err = fmt.Errorf("encode time: %w", err)
		return
	}
	w.b = append(b, '"')
}

func (w *jsonWriter) recipient(r *smtp.Recipient) {
	w.key(`{"addr":`)
	w.string(r.Address)
	w.optional(`,"orcpt":`, r.ORCPT)
	if len(r.Notify) > 0 {
		w.key(`,"notify":[`)
		for i, word := range r.Notify {
			if i > 0 {
				w.b = append(w.b, ',')
			}
			w.string(word)
		}
		w.b = append(w.b, ']')
	}
	w.b = append(w.b, '}')
}

func (w *jsonWriter) string(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			text, err := json.Marshal(s)
			if err != nil {
				w.err = err
			}
			w.b = append(w.b, text...)
			return
		}
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, s...)
	w.b = append(w.b, '"')
}
