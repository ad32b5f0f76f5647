package imapstore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/wire"
)

// fault turns a server's clear answer into a sentinel of imapsync; whatever is not clear
// stays as it is: unknown.
func fault(err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, wire.ErrTooBig):
		return fmt.Errorf("%w: %w", imapsync.ErrTooBig, err)
	case errors.Is(err, wire.ErrArgument):
		return fmt.Errorf("%w: %w", imapsync.ErrNoName, err)
	}
	refusal, ok := errors.AsType[*wire.StatusError](err)
	if !ok {
		return err
	}
	if sentinel := meaning(refusal.Status); sentinel != nil {
		return fmt.Errorf("%w: %w", sentinel, err)
	}
	return err
}

// meaning is nil for what says nothing about the request itself.
func meaning(s wire.Status) error {
	switch s.Code { //nolint:exhaustive // the others fall through to the text
	case imap.ResponseCodeNonExistent, imap.ResponseCodeTryCreate:
		return imapsync.ErrNoBox
	case imap.ResponseCodeAlreadyExists:
		return imapsync.ErrBoxExists
	case imap.ResponseCodeNoPerm, "READ-ONLY":
		return imapsync.ErrNoAccess
	case imap.ResponseCodeOverQuota:
		return imapsync.ErrOverQuota
	case imap.ResponseCodeTooBig:
		return imapsync.ErrTooBig
	case imap.ResponseCodeHasChildren:
		return imapsync.ErrNotEmpty
	case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeServerBug, imap.ResponseCodeCorruption,
		imap.ResponseCodeContactAdmin, imap.ResponseCodeExpired, imap.ResponseCodePrivacyRequired, imap.ResponseCodeAuthenticationFailed,
		imap.ResponseCodeAuthorizationFailed:
		return nil
	}
	if s.Type == imap.StatusResponseTypeBad {
		return imapsync.ErrRefused
	}
	for _, row := range wordings() {
		if strings.Contains(strings.ToLower(s.Text), row.text) {
			return row.means
		}
	}
	return imapsync.ErrRefused
}

type wording struct {
	text  string
	means error
}

// wordings are what servers without response codes (RFC 5530) say.
func wordings() []wording {
	return []wording{
		{"internal error", nil},               // Dovecot, with a reference to its log
		{"does not exist", imapsync.ErrNoBox}, // Cyrus
		{"doesn't exist", imapsync.ErrNoBox},  // Dovecot
		{"no such mailbox", imapsync.ErrNoBox},
		{"unknown mailbox", imapsync.ErrNoBox},
		{"already exists", imapsync.ErrBoxExists}, // Cyrus, Dovecot
		{"over quota", imapsync.ErrOverQuota},     // Cyrus
		{"quota exceeded", imapsync.ErrOverQuota}, // Dovecot
		{"permission denied", imapsync.ErrNoAccess},
		{"message too large", imapsync.ErrTooBig},
		{"inferior hierarchical", imapsync.ErrNotEmpty},
	}
}

// certain says whether err is one of imapsync's sentinels.
func certain(err error) bool {
	for _, sentinel := range []error{
		imapsync.ErrNoBox, imapsync.ErrBoxExists, imapsync.ErrNotEmpty, imapsync.ErrReplaced, imapsync.ErrNoAccess, imapsync.ErrOverQuota,
		imapsync.ErrTooBig, imapsync.ErrRefused, imapsync.ErrNoName, imapsync.ErrGone,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// refused is like wire.Refused, for the errors of this package too.
func refused(err error) bool { return certain(err) || wire.Refused(err) }
