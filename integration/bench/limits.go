package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"understudy/integration/lab"
)

// diskTime is how long each figure of the disk is measured.
const diskTime = 2 * time.Second

// limit is what the machine can do at best with messages of 4 KiB and a number of
// writers, in messages per second.
type limit struct {
	writers int
	// generator is what smtp-source itself can send, to a server that stores
	// nothing and answers at once.
	generator float64
	// groupCommit is one preallocated log with one fdatasync for all that came
	// meanwhile; filePerMessage is a new file and an fsync for each.
	groupCommit, filePerMessage float64
}

// measureLimits measures the limits for each number of writers, in dir.
func measureLimits(ctx context.Context, dir string, writers ...int) ([]limit, error) {
	var all []limit
	block := make([]byte, 4<<10)
	for _, w := range writers {
		log, err := newGroupLog(filepath.Join(dir, "log"))
		if err != nil {
			return nil, err
		}
		l := limit{writers: w}
		l.groupCommit, err = perWriter(w, func(int) error { return log.append(block) })
		if err = errors.Join(err, log.close()); err != nil {
			return nil, err
		}
		var next atomic.Int64
		l.filePerMessage, err = perWriter(w, func(int) error {
			return writeSynced(filepath.Join(dir, fmt.Sprint("m", next.Add(1))), block)
		})
		if err != nil {
			return nil, err
		}
		if l.generator, err = measureGenerator(ctx, w); err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// measureGenerator sends to a sink that only counts.
func measureGenerator(ctx context.Context, connections int) (rate float64, err error) {
	h := lab.NewProgram(ctx, "bench-mx")
	defer func() {
		if e := h.End(recover()); err == nil {
			err = e
		}
	}()
	sink := lab.StartSink(h, lab.SinkConfig{})
	n := 2000 * min(connections, 10)
	start := time.Now()
	err = lab.Load{
		Addr: sink.Addr, Messages: n, Connections: connections, Bytes: 4 << 10, From: "sender@ext.test", To: "user@" + domain,
	}.Run(ctx)
	return float64(n) / time.Since(start).Seconds(), err
}

// perWriter runs op in so many goroutines for diskTime and counts.
func perWriter(writers int, op func(writer int) error) (float64, error) {
	var (
		count atomic.Int64
		mu    sync.Mutex
		errs  []error
		done  sync.WaitGroup
	)
	start := time.Now()
	for w := range writers {
		done.Go(func() {
			for time.Since(start) < diskTime {
				if err := op(w); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
					return
				}
				count.Add(1)
			}
		})
	}
	done.Wait()
	return float64(count.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}

func writeSynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
}

// groupLog is the simplest log with group commit: it has no records, no index
// and no recovery, and so shows what the disk alone allows.
type groupLog struct {
	file *os.File
	mu   sync.Mutex
	// pending is the batch that the next sync carries; nil where none waits.
	pending *batch
	syncing sync.Mutex
	offset  int64
}

type batch struct {
	data []byte
	done chan struct{}
	err  error
}

// logBytes is the room that is allocated in advance and used again and again.
const logBytes = 256 << 20

func newGroupLog(path string) (*groupLog, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	// Written, not only allocated: else every first write changes metadata too.
	zero := make([]byte, 1<<20)
	for range logBytes / len(zero) {
		if _, err := f.Write(zero); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &groupLog{file: f}, nil
}

// append returns when data is on disk.
func (l *groupLog) append(data []byte) error {
	l.mu.Lock()
	b, leader := l.pending, false
	if b == nil {
		b, leader = &batch{done: make(chan struct{})}, true
		l.pending = b
	}
	b.data = append(b.data, data...)
	l.mu.Unlock()
	if !leader {
		<-b.done
		return b.err
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	l.pending = nil
	l.mu.Unlock()
	if l.offset+int64(len(b.data)) > logBytes {
		l.offset = 0
	}
	_, b.err = l.file.WriteAt(b.data, l.offset)
	l.offset += int64(len(b.data))
	b.err = errors.Join(b.err, unix.Fdatasync(int(l.file.Fd())))
	close(b.done)
	return b.err
}

func (l *groupLog) close() error { return errors.Join(l.file.Close(), os.Remove(l.file.Name())) }
