package smtp

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	gosmtp "github.com/emersion/go-smtp"
)

// The stages at which a session refuses, as the log names them.
const (
	stageConnect = "CONNECT"
	stageMail    = "MAIL"
	stageRcpt    = "RCPT"
	stageData    = "DATA"
	stageETRN    = "ETRN"
)

// refusal is a reply with a code and a public text, and a private cause.
type refusal struct {
	code     int
	enhanced gosmtp.EnhancedCode
	reason   string
	from, to string
	id       string
	cause    error
}

func code(class, subject, detail int) gosmtp.EnhancedCode {
	return gosmtp.EnhancedCode{class, subject, detail}
}

// temporary is the answer to everything nobody gave a code to: never 5xx.
func temporary(cause error) refusal {
	return refusal{code: 451, enhanced: code(4, 3, 0), reason: "Temporary local problem, please try later", cause: cause}
}

// storage is the answer to an error of the queue.
func storage(err error) refusal {
	if errors.Is(err, ErrFull) {
		// RFC 5321, section 4.2.3.
		return refusal{code: 452, enhanced: code(4, 3, 1), reason: "Insufficient system storage"}
	}
	return temporary(err)
}

// refuse logs r once, counts it and returns the reply.
func (s *session) refuse(stage string, r refusal) *gosmtp.SMTPError {
	name := s.clientName(false)
	if name == "" {
		name = "unknown"
	}
	proto := "SMTP"
	if s.conn.Extended() {
		proto = "ESMTP"
	}
	enhanced := formatEnhanced(r.enhanced)
	attrs := []any{
		slog.String("stage", stage),
		slog.String("client", name),
		slog.String("addr", s.conn.RemoteAddr().Addr().Unmap().String()),
		slog.Int("code", r.code),
		slog.String("enhanced", enhanced),
		slog.String("reason", r.reason),
		slog.String("from", r.from),
		slog.String("to", r.to),
		slog.String("helo", s.conn.HELO()),
		slog.String("proto", proto),
	}
	if r.id != "" {
		attrs = append(attrs, slog.String("queue_id", r.id))
	}
	level := slog.LevelInfo
	if r.cause != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Any("err", r.cause))
	}
	s.log.Log(s.ctx, level, "reject", attrs...)
	s.rejects++
	s.front.metrics.rejects.WithLabelValues(stage).Inc()
	text := r.reason
	if r.to != "" {
		text = "<" + safeText(r.to) + ">: " + text
	}
	return &gosmtp.SMTPError{Code: r.code, EnhancedCode: r.enhanced, Message: text}
}

func formatEnhanced(e gosmtp.EnhancedCode) string {
	return fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2])
}

// safeText keeps a client's words from forming a reply of their own.
func safeText(s string) string {
	const maxBytes = 320
	if len(s) > maxBytes {
		s = s[:maxBytes] + "..."
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
}
