package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"understudy/imapsync"
)

// withWait is how often With looks whether a pass has ended.
const withWait = 20 * time.Millisecond

// keepers are the accounts of a running fleet.
type keepers struct {
	mu     sync.Mutex
	byName map[string]*keeper
}

func (ks *keepers) put(k *keeper) {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	ks.byName[k.account.Name] = k
}

// remove forgets k, unless its account already has another keeper.
func (ks *keepers) remove(k *keeper) {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	if ks.byName[k.account.Name] == k {
		delete(ks.byName, k.account.Name)
	}
}

func (ks *keepers) get(name string) *keeper {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	return ks.byName[name]
}

// With calls use with the base of an account that this fleet keeps, between two
// passes, and makes the account due at once where use returns true. It waits for a
// pass that is going on until ctx ends, and returns imapsync.ErrBusy then. An
// account that is not kept here is ErrUnknown.
func (f *Fleet) With(ctx context.Context, account string, use func(Account) (due bool, err error)) error {
	k := f.keepers.get(account)
	if k == nil {
		return fmt.Errorf("%s: %w", account, ErrUnknown)
	}
	for !k.mu.TryLock() {
		if !sleep(ctx, withWait) {
			return fmt.Errorf("%s: %w", account, imapsync.ErrBusy)
		}
	}
	defer k.mu.Unlock()
	s := k.session
	if s == nil {
		var err error
		if s, err = f.deps.Opener.Open(ctx, k.account); err != nil {
			return err
		}
		defer s.Close() //nolint:errcheck // its connections were never used
	}
	due, err := use(s.Account)
	if due {
		select {
		case k.poke <- struct{}{}:
		default:
		}
	}
	return err
}
