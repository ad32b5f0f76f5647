package durable

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
)

// spareMaker prepares the next segment file in the background, filled with zeros:
// syncing overwritten blocks is much cheaper than syncing blocks whose first use
// the file system must note in its journal.
type spareMaker struct {
	wanted chan struct{} // capacity 1
	ready  chan File     // capacity 1
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// start begins with a first spare. stop must follow.
func (m *spareMaker) start(ctx context.Context, cfg LogConfig) {
	if cfg.NoSpare {
		return
	}
	m.wanted = make(chan struct{}, 1)
	m.ready = make(chan File, 1)
	ctx, m.cancel = context.WithCancel(ctx)
	m.wg.Go(func() { m.run(ctx, cfg) })
	m.want()
}

func (m *spareMaker) run(ctx context.Context, cfg LogConfig) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wanted:
		}
		if len(m.ready) > 0 {
			continue
		}
		f, err := makeSpare(ctx, cfg)
		if err != nil {
			// No harm: the writer allocates its segment itself, and says what it meets.
			cfg.Logger.Debug("no spare segment", "log", cfg.Name, "err", err)
			continue
		}
		m.ready <- f // only this goroutine sends, and it saw room
	}
}

// want asks for a spare where there is none.
func (m *spareMaker) want() {
	if m.wanted == nil || len(m.ready) > 0 {
		return
	}
	select {
	case m.wanted <- struct{}{}:
	default:
	}
}

// take returns the spare, or nil.
func (m *spareMaker) take() File {
	select {
	case f := <-m.ready:
		return f
	default:
		return nil
	}
}

// stop ends the goroutine and removes the spare.
func (m *spareMaker) stop(cfg LogConfig) {
	if m.cancel == nil {
		return
	}
	m.cancel()
	m.wg.Wait()
	m.wanted = nil
	if f := m.take(); f != nil {
		if err := discard(cfg.FS, f, filepath.Join(cfg.Dir, spareName)); err != nil {
			cfg.Logger.Warn("spare segment not removed", "log", cfg.Name, "err", err)
		}
	}
}

// makeSpare fails where there is a file of that name: the writer has taken it, and
// is about to make it a segment. Leftovers of a crash were removed by OpenLog.
func makeSpare(ctx context.Context, cfg LogConfig) (File, error) {
	name := filepath.Join(cfg.Dir, spareName)
	f, err := cfg.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, cfg.Perm)
	if err != nil {
		return nil, err
	}
	if err := fillSpare(ctx, f, cfg.SegmentBytes); err != nil {
		return nil, errors.Join(err, discard(cfg.FS, f, name))
	}
	return f, nil
}

func fillSpare(ctx context.Context, f File, sizeBytes int64) error {
	if err := f.Allocate(sizeBytes); err != nil {
		return err
	}
	const chunk, syncEvery = 256 << 10, 4 << 20 // small steps: the log is syncing meanwhile
	zeros := make([]byte, min(chunk, sizeBytes))
	for off := int64(0); off < sizeBytes; off += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.WriteAt(zeros[:min(chunk, sizeBytes-off)], off); err != nil {
			return err
		}
		if (off+chunk)%syncEvery == 0 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}
