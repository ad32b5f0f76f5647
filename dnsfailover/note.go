package dnsfailover

import (
	"fmt"
	"strconv"
	"strings"
)

// notePrefix starts the text of an epoch note.
const notePrefix = "v=us1-epoch;epoch="

// EpochNote is the text of the TXT record that a Publisher keeps beside records
// in a zone without register: of which epoch they are.
func EpochNote(epoch uint64) string { return notePrefix + strconv.FormatUint(epoch, 10) }

// CheckEpochNote says whether a note lets a change of epoch through. text is ""
// where there is no note. Errors: ErrConflict for a higher noted epoch,
// ErrBadRegister for a text that is no note.
func CheckEpochNote(text string, epoch uint64) error {
	if text == "" {
		return nil
	}
	number, ours := strings.CutPrefix(text, notePrefix)
	n, err := strconv.ParseUint(number, 10, 64)
	if !ours || err != nil || EpochNote(n) != text {
		return fmt.Errorf("%w: %q is no epoch", ErrBadRegister, text)
	}
	if n > epoch {
		return fmt.Errorf("%w: the records are of epoch %d, this change is of %d", ErrConflict, n, epoch)
	}
	return nil
}
