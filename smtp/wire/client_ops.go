package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// opKind is what a reply answers.
type opKind uint8

const (
	opPlain   opKind = iota // a command of its own; the waiter judges
	opReset                 // RSET in front of a message: must be 2xx
	opForward               // XFORWARD: whatever it is, delivery goes on
	opMail
	opRcpt
	opData  // DATA: 354
	opChunk // BDAT without LAST
	opFinal // the whole message; several replies with LMTP
)

// clientOp is one command whose reply is still to come.
type clientOp struct {
	kind   opKind
	flight *flight
	rcpt   int        // of opRcpt
	seen   int        // of opFinal: replies so far
	reply  chan Reply // where someone waits; closed without a reply on failure
}

// flight is one message on its way. Its fields belong to Client.mu.
type flight struct {
	m        *Outgoing
	done     func([]Answer)
	answers  []Answer
	accepted []int // recipients answered 2xx, in order
	pending  int   // replies to come
	ended    bool  // nothing more will be sent
	writing  bool  // content of DATA or of the last chunk not yet fully handed over
	failed   bool  // nothing can come of it any more
	good     bool  // accepted: the server has closed the transaction
	finished bool
	behind   bool
	stage    Stage
	replies  int
	err      error
}

func newFlight(m *Outgoing, done func([]Answer)) *flight {
	return &flight{m: m, done: done, answers: make([]Answer, len(m.To))}
}

// lock takes the right to write.
func (c *Client) lock(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.dead:
		return c.Err()
	}
}

func (c *Client) unlock() { <-c.turn }

// settle waits until no message is on its way. The caller holds turn.
func (c *Client) settle(ctx context.Context) error {
	taken := 0
	defer func() {
		for range taken {
			<-c.slots
		}
	}()
	for range cap(c.slots) {
		if err := c.slot(ctx); err != nil {
			return err
		}
		taken++
	}
	return nil
}

func (c *Client) slot(ctx context.Context) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.dead:
		return c.Err()
	}
}

// push registers a command before its bytes are written, so that no reply can
// come without one.
func (c *Client) push(op clientOp) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.ops = append(c.ops, op)
	if op.flight != nil {
		op.flight.pending++
		op.flight.stage = max(op.flight.stage, StageMail) // the least it waits for
	}
	return nil
}

// write appends to the output buffer.
func (c *Client) write(b []byte) error {
	if _, err := c.bw.Write(b); err != nil {
		return c.broken(err)
	}
	return nil
}

// broken ends a connection that takes no more bytes. What the server said
// before it closed is still worth a moment: it may be 421.
func (c *Client) broken(err error) error {
	c.mu.Lock()
	c.wrote = err
	c.armLocked()
	c.mu.Unlock()
	timer := time.NewTimer(2 * lastWords)
	defer timer.Stop()
	select {
	case <-c.dead:
	case <-timer.C:
		c.fail(err)
	}
	return c.Err()
}

const lastWords = time.Second

func (c *Client) flush() error {
	if err := c.bw.Flush(); err != nil {
		return c.broken(err)
	}
	c.arm()
	return nil
}

// command sends one command and waits for its reply. The caller holds turn.
func (c *Client) command(ctx context.Context, kind opKind, line string) (Reply, error) {
	ch := make(chan Reply, 1)
	if err := c.push(clientOp{kind: kind, reply: ch}); err != nil {
		return Reply{}, err
	}
	if err := c.write([]byte(line)); err != nil {
		return Reply{}, err
	}
	if err := c.flush(); err != nil {
		return Reply{}, err
	}
	return c.await(ctx, ch)
}

// await waits for one reply.
func (c *Client) await(ctx context.Context, ch chan Reply) (Reply, error) {
	select {
	case rep, ok := <-ch:
		if !ok {
			return Reply{}, c.Err()
		}
		return rep, nil
	case <-ctx.Done():
		c.fail(context.Cause(ctx))
		return Reply{}, context.Cause(ctx)
	}
}

// arm sets the read deadline for the reply that comes next.
func (c *Client) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armLocked()
}

func (c *Client) armLocked() {
	wait := c.cfg.IdleTimeout
	if len(c.ops) > 0 {
		switch c.ops[0].kind {
		case opFinal, opChunk:
			wait = c.cfg.FinalTimeout
		case opPlain, opReset, opForward, opMail, opRcpt, opData:
			wait = c.cfg.CommandTimeout
		}
		if c.quitting {
			wait = min(wait, 2*time.Second)
		}
	}
	if c.wrote != nil {
		wait = lastWords
	}
	if c.err == nil {
		_ = c.conn.SetReadDeadline(time.Now().Add(wait)) // the read reports a dead connection
	}
}

// read takes replies until the connection ends.
func (c *Client) read() {
	defer close(c.done)
	for {
		rep, err := readReply(c.br)
		if err != nil {
			c.fail(c.explain(err))
			return
		}
		if err := c.answer(rep); err != nil {
			c.fail(err)
			return
		}
	}
}

// explain tells an idle end and a silent server apart.
func (c *Client) explain(err error) error {
	c.mu.Lock()
	wrote := c.wrote
	c.mu.Unlock()
	if wrote != nil {
		return wrote
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ops) == 0 {
		return ErrIdle
	}
	return fmt.Errorf("no answer in time: %w", err)
}

// answer gives one reply to the command it belongs to. An error ends the
// connection.
func (c *Client) answer(rep Reply) error {
	c.mu.Lock()
	if len(c.ops) == 0 {
		c.mu.Unlock()
		if rep.Code == 421 {
			return fmt.Errorf("%w: %s", ErrClosing, rep)
		}
		return fmt.Errorf("%w: nothing was asked, got %s", ErrReply, rep)
	}
	op := &c.ops[0]
	f := op.flight
	err := c.judge(op, rep)
	if err != nil {
		c.mu.Unlock()
		return err // fail finds the command still at the head
	}
	if f == nil || op.kind != opFinal || op.seen >= max(1, c.finals(f)) {
		if op.reply != nil {
			op.reply <- rep
		}
		c.ops[0] = clientOp{}
		if c.ops = c.ops[1:]; len(c.ops) == 0 {
			c.ops = nil
		}
		if f != nil {
			f.pending--
		}
	}
	if c.br.Buffered() == 0 {
		c.armLocked()
	}
	ready := f != nil && f.ended && f.pending == 0
	c.mu.Unlock()
	if ready {
		c.finish(f)
	}
	return nil
}

// finals is how many replies the end of data brings: RFC 2033, section 4.2.
func (c *Client) finals(f *flight) int {
	if !c.cfg.LMTP {
		return 1
	}
	return len(f.accepted)
}

// judge notes a reply with its message. The caller holds mu.
func (c *Client) judge(op *clientOp, rep Reply) error {
	f := op.flight
	if f != nil {
		f.replies++
	}
	if rep.Code == 421 && f != nil {
		f.setRest(rep, opStage(op.kind))
		return fmt.Errorf("%w: %s", ErrClosing, rep)
	}
	if rep.Code/100 == 3 && (op.kind != opData || rep.Code != 354) {
		return fmt.Errorf("%w: %s does not answer %s", ErrReply, rep, opStage(op.kind))
	}
	switch op.kind {
	case opPlain, opForward:
	case opReset:
		if !rep.Positive() {
			// Out of step, or a server nobody can talk to.
			return fmt.Errorf("%w: RSET answered %s", ErrReply, rep)
		}
	case opMail:
		if !rep.Positive() {
			f.setRest(rep, StageMail)
		}
	case opRcpt:
		f.stage = StageRcpt
		if rep.Positive() && !f.failed {
			f.accepted = append(f.accepted, op.rcpt)
		} else {
			f.set(op.rcpt, rep, StageRcpt)
		}
	case opData:
		f.stage = StageData
		if rep.Positive() {
			return fmt.Errorf("%w: %s does not answer DATA", ErrReply, rep)
		}
		if rep.Code != 354 {
			f.setAccepted(rep, StageData)
			f.failed = true
		}
	case opChunk:
		if f.stage = StageData; !rep.Positive() {
			f.setAccepted(rep, StageData)
			f.failed = true
			if c.cfg.LMTP {
				return fmt.Errorf("%w: how often the rest of the message is answered is not known after %s", ErrReply, rep)
			}
		}
	case opFinal:
		return c.judgeFinal(op, rep)
	}
	return nil
}

func (c *Client) judgeFinal(op *clientOp, rep Reply) error {
	f := op.flight
	if f.writing && (rep.Positive() || !c.chunking()) {
		// The server has made up its mind before it saw everything. A refusal
		// counts, and a chunk has its length; an acceptance cannot be one of the
		// whole message.
		if !rep.Positive() {
			f.setAccepted(rep, StageFinal)
		}
		return fmt.Errorf("%w: answer before the end of data: %s", ErrReply, rep)
	}
	f.stage = StageFinal
	op.seen++
	switch {
	case len(f.accepted) == 0:
	case c.cfg.LMTP:
		f.set(f.accepted[op.seen-1], rep, StageFinal)
	default:
		f.setAccepted(rep, StageFinal)
	}
	if rep.Positive() && op.seen >= c.finals(f) && len(f.accepted) > 0 && !f.failed {
		f.good = true
	}
	return nil
}

func opStage(k opKind) Stage {
	switch k {
	case opRcpt:
		return StageRcpt
	case opData, opChunk:
		return StageData
	case opFinal:
		return StageFinal
	case opPlain, opReset, opForward, opMail:
	}
	return StageMail
}

// set answers one recipient, once.
func (f *flight) set(i int, rep Reply, stage Stage) {
	if a := &f.answers[i]; a.Code == 0 {
		a.Reply, a.Stage, a.At = rep, stage, time.Now()
	}
}

func (f *flight) setAccepted(rep Reply, stage Stage) {
	for _, i := range f.accepted {
		f.set(i, rep, stage)
	}
}

// setRest answers everyone who has no answer yet: nothing can come of the
// message any more.
func (f *flight) setRest(rep Reply, stage Stage) {
	for i := range f.answers {
		f.set(i, rep, stage)
	}
	f.failed = true
}

// fail ends the connection, once, and with it all messages on their way.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	ops := c.ops
	c.ops = nil
	var lost []*flight
	var head *flight
	for _, op := range ops {
		if op.reply != nil {
			close(op.reply)
		}
		f := op.flight
		if f == nil {
			continue
		}
		if head == nil {
			head = f
		}
		f.behind = f != head && f.replies == 0
		f.pending--
		if f.pending == 0 && f.ended {
			lost = append(lost, f)
		}
	}
	close(c.dead)
	c.mu.Unlock()
	c.conn.Close() //nolint:errcheck // lost in any case
	for _, f := range lost {
		c.finish(f)
	}
}

// conclude says that nothing more of a message will be sent.
func (c *Client) conclude(f *flight, err error) {
	c.mu.Lock()
	f.ended = true
	if f.err == nil {
		f.err = err
	}
	ready := f.pending == 0
	c.mu.Unlock()
	if ready {
		c.finish(f)
	}
}

// finish hands the answers over, once.
func (c *Client) finish(f *flight) {
	c.mu.Lock()
	if f.finished {
		c.mu.Unlock()
		return
	}
	f.finished = true
	c.sent++
	why := f.err
	if why == nil {
		why = c.err
	}
	now := time.Now()
	for i := range f.answers {
		a := &f.answers[i]
		if a.Code == 0 && a.Err == nil {
			a.Stage, a.Behind, a.At = f.stage, f.behind, now
			if a.Err = why; a.Err == nil {
				a.Err = fmt.Errorf("%w: no answer for this recipient", ErrReply)
			}
		}
	}
	c.mu.Unlock()
	<-c.slots
	f.done(f.answers)
}
