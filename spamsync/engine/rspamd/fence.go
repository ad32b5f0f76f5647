package rspamd

import (
	"io"
	"sync"
)

// fence is a reader that can be closed for good: end waits for a read that is
// under way, and afterwards the reader behind is not touched again.
type fence struct {
	mu    sync.Mutex
	r     io.Reader
	ended bool
}

func (f *fence) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return 0, io.ErrClosedPipe
	}
	return f.r.Read(p)
}

func (f *fence) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
}
