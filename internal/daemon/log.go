package daemon

import (
	"io"
	"log/slog"
	"os"

	"understudy/internal/config"
)

// NewLogger returns the logger that the configuration asks for, writing to w,
// and the level behind it, which a reload may change.
func NewLogger(cfg config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(logLevel(cfg.Level))
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch cfg.Format {
	case "json":
		h = slog.NewJSONHandler(w, opts)
	case "text":
		h = slog.NewTextHandler(w, opts)
	default:
		// systemd(1): the journal stamps lines itself.
		h = newMailHandler(w, level, os.Getenv("JOURNAL_STREAM") == "")
	}
	return slog.New(h), level
}

// logLevel reads a level that the configuration has checked.
func logLevel(name string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo
	}
	return l
}
