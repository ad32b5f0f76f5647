package witness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"understudy/dnsfailover"
)

// ErrLocked says that another process has the store open.
var ErrLocked = errors.New("the witness's file is in use; is the witness running?")

// ErrBroken says that a write has failed; the store must be opened again.
var ErrBroken = errors.New("an earlier write of the witness failed")

var (
	bucketRegister = []byte("register")
	bucketHistory  = []byte("history")
	keyNow         = []byte("now")
)

const (
	// openLimit is how long Open waits for another process.
	openLimit = time.Second
	// historyKept is how many values are remembered.
	historyKept = 1000
)

// Store is the file. Safe for concurrent use.
type Store struct {
	db *bolt.DB

	mu     sync.Mutex
	broken error
}

// Open opens the file, or makes an empty one. A damaged file is an error: nothing
// is repaired or thrown away.
func Open(path string) (s *Store, err error) {
	defer func() {
		// bbolt panics on some damaged files.
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("open witness: %s is damaged: %v", path, p)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: openLimit})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open witness: %w: %s", ErrLocked, path)
	case err != nil:
		return nil, fmt.Errorf("open witness: %s: %w", path, err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		var errs []error
		for e := range tx.Check() { // to its end, or its goroutine would stay
			errs = append(errs, e)
		}
		return errors.Join(errs...)
	})
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			_, e1 := tx.CreateBucketIfNotExists(bucketRegister)
			_, e2 := tx.CreateBucketIfNotExists(bucketHistory)
			return errors.Join(e1, e2)
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open witness: %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

// Close closes the file.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close witness: %w", err)
	}
	return nil
}

// Read returns the register. Errors: ErrMissing, ErrBadRegister, ErrBroken.
func (s *Store) Read() (dnsfailover.Register, error) {
	if err := s.usable(); err != nil {
		return dnsfailover.Register{}, err
	}
	var r dnsfailover.Register
	err := s.db.View(func(tx *bolt.Tx) (err error) {
		r, err = now(tx)
		return err
	})
	return r, err
}

// Swap replaces old with new; the zero Register is "none". nil promises that new
// is on the disk. Errors: ErrConflict and ErrRefused, nothing was changed;
// ErrBroken, it may have been.
func (s *Store) Swap(old, new dnsfailover.Register) error {
	if err := new.Validate(); err != nil {
		return fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err)
	}
	return s.write(func(tx *bolt.Tx) error {
		r, err := now(tx)
		if err != nil && !errors.Is(err, dnsfailover.ErrMissing) {
			return fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err)
		}
		if r != old {
			return fmt.Errorf("%w: it now holds %q", dnsfailover.ErrConflict, r)
		}
		return put(tx, new)
	})
}

// Restore writes r, whatever is there, as long as its epoch is higher: it is the
// operator's act after a loss. Errors as Swap.
func (s *Store) Restore(r dnsfailover.Register) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err)
	}
	return s.write(func(tx *bolt.Tx) error {
		had, err := now(tx)
		if err == nil && had.Epoch >= r.Epoch {
			return fmt.Errorf("%w: the register is there, of epoch %d; a restored one must have a higher epoch", dnsfailover.ErrRefused, had.Epoch)
		}
		return put(tx, r)
	})
}

// History returns the values of the register, the newest last.
func (s *Store) History() ([]dnsfailover.Register, error) {
	var out []dnsfailover.Register
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketHistory).ForEach(func(_, v []byte) error {
			r, err := dnsfailover.ParseRegister(string(v))
			if err != nil {
				return fmt.Errorf("read history: %w", err)
			}
			out = append(out, r)
			return nil
		})
	})
	return out, err
}

func (s *Store) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// write runs change in a transaction that is synced when write returns. An error
// of change itself, which has a sentinel, rolls back; any other breaks the store.
func (s *Store) write(change func(*bolt.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	err := s.db.Update(change)
	if err == nil || errors.Is(err, dnsfailover.ErrConflict) || errors.Is(err, dnsfailover.ErrRefused) {
		return err
	}
	s.broken = fmt.Errorf("%w: %w", ErrBroken, err)
	return s.broken
}

func now(tx *bolt.Tx) (dnsfailover.Register, error) {
	v := tx.Bucket(bucketRegister).Get(keyNow)
	if v == nil {
		return dnsfailover.Register{}, fmt.Errorf("%w: the witness has no data", dnsfailover.ErrMissing)
	}
	r, err := dnsfailover.ParseRegister(string(v))
	if err != nil {
		return dnsfailover.Register{}, fmt.Errorf("%w: %w", dnsfailover.ErrBadRegister, err)
	}
	return r, nil
}

func put(tx *bolt.Tx, r dnsfailover.Register) error {
	if err := tx.Bucket(bucketRegister).Put(keyNow, []byte(r.String())); err != nil {
		return err
	}
	history := tx.Bucket(bucketHistory)
	n, err := history.NextSequence()
	if err != nil {
		return err
	}
	if err := history.Put(binary.BigEndian.AppendUint64(nil, n), []byte(r.String())); err != nil {
		return err
	}
	if n > historyKept {
		return history.Delete(binary.BigEndian.AppendUint64(nil, n-historyKept))
	}
	return nil
}

// Exists says whether there is a file at all.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
