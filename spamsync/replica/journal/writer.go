package journal

import (
	"context"
	"time"

	"understudy/spamsync/replica/stream"
)

// writer gathers what one connection brings.
type writer struct {
	j    *Journal
	conn *stream.Conn
	run  *run

	buf   []byte
	next  int64 // offset after buf
	db    int32 // before buf
	inTx  bool
	whole bool
	since time.Time // when the first byte of buf came
	idle  bool      // only PINGs

	acked   time.Time
	trimmed time.Time
}

// reset makes room for what comes next.
func (w *writer) reset(now time.Time) {
	w.buf = w.buf[:0]
	w.since, w.idle = now, true
}

// until is when the writer wants to look around again.
func (w *writer) until(now time.Time) time.Time {
	limit := now.Add(tick)
	if len(w.buf) > 0 && !w.idle {
		if due := w.since.Add(w.j.opts.Config.SyncEvery); due.Before(limit) {
			return due
		}
	}
	return limit
}

// service does what is due.
func (w *writer) service(ctx context.Context, now time.Time) error {
	wait := w.j.opts.Config.SyncEvery
	if w.idle && !w.j.isWanted() {
		wait = idleLimit
	}
	if len(w.buf) > 0 && now.Sub(w.since) >= wait {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if now.Sub(w.acked) >= ackEvery {
		if err := w.ack(now); err != nil {
			return err
		}
	}
	if now.Sub(w.trimmed) >= trimEvery {
		w.trimmed = now
		return w.j.trim(ctx, now)
	}
	return nil
}

func (w *writer) ack(now time.Time) error {
	w.acked = now
	return w.conn.Ack(w.run.end)
}

// take adds one command.
func (w *writer) take(ctx context.Context, cmd stream.Command) error {
	if len(w.buf) > 0 && len(w.buf)+len(cmd.Raw) > chunkBytes {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if len(w.buf) == 0 {
		w.since, w.idle = time.Now(), true
	}
	if !cmd.Is("PING") && len(cmd.Args) > 0 {
		w.idle = false
	}
	asked := cmd.Is("REPLCONF") // GETACK
	for raw := cmd.Raw; len(raw) > 0; {
		n := min(len(raw), chunkBytes-len(w.buf))
		w.buf = append(w.buf, raw[:n]...)
		w.next += int64(n)
		raw = raw[n:]
		if len(raw) > 0 {
			if err := w.flush(ctx); err != nil {
				return err
			}
			w.whole = false
		}
	}
	if len(w.buf) >= chunkBytes || asked {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if asked {
		return w.ack(time.Now())
	}
	return nil
}

// flush writes and syncs the buffer, and tells the server so.
func (w *writer) flush(ctx context.Context) error {
	if len(w.buf) == 0 {
		return nil
	}
	now := time.Now()
	h := header{
		run: w.run.seq, how: w.run.how, whole: w.whole, inTx: w.inTx, db: w.db, at: now.UnixMilli(),
		runStart: w.run.start, start: w.next - int64(len(w.buf)), id: w.run.id, parent: w.run.parent,
	}
	if err := w.j.append(ctx, w.run, h, w.buf); err != nil {
		return err
	}
	w.reset(now)
	w.db, w.inTx, w.whole = int32(w.conn.DB()), w.conn.InTx(), true
	if len(w.j.log.Segments())*int(w.j.segmentBytes) > int(w.j.opts.Config.MaxBytes) {
		if err := w.j.trim(ctx, now); err != nil {
			return err
		}
	}
	if now.Sub(w.acked) >= tick {
		return w.ack(now)
	}
	return nil
}
