package wire

import (
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Status is the answer to a command, or an untagged OK, NO, BAD, BYE or PREAUTH (RFC
// 9051, section 7.1).
type Status struct {
	Type imap.StatusResponseType
	Code imap.ResponseCode
	// Text is the server's, cut after 500 bytes and free of control characters.
	Text string

	number      uint64          // of UIDNEXT, UIDVALIDITY, HIGHESTMODSEQ, APPENDLIMIT
	validity    uint32          // of APPENDUID and COPYUID
	source, set []imap.UIDRange // of COPYUID and APPENDUID, MODIFIED: in the server's order
	words       []string        // of CAPABILITY and PERMANENTFLAGS
	id          string          // of MAILBOXID
}

// String is the server's words.
func (s Status) String() string {
	var b strings.Builder
	b.WriteString(string(s.Type))
	if s.Code != "" {
		b.WriteString(" [" + string(s.Code) + "]")
	}
	if s.Text != "" {
		b.WriteString(" " + s.Text)
	}
	return b.String()
}

func statusType(word string) (imap.StatusResponseType, bool) {
	switch t := imap.StatusResponseType(word); t {
	case imap.StatusResponseTypeOK, imap.StatusResponseTypeNo, imap.StatusResponseTypeBad,
		imap.StatusResponseTypePreAuth, imap.StatusResponseTypeBye:
		return t, true
	default:
		return "", false
	}
}

// status reads what follows "OK" or the like, to the end of the line.
func (d *decoder) status(t imap.StatusResponseType) (Status, error) {
	s := Status{Type: t}
	blank, err := d.accept(' ')
	if err != nil {
		return s, err
	}
	if blank {
		if coded, err := d.accept('['); err != nil {
			return s, err
		} else if coded {
			if err := d.code(&s); err != nil {
				return s, err
			}
		}
	}
	s.Text, err = d.human()
	s.Text = strings.TrimLeft(s.Text, " ")
	return s, err
}

// code reads a response code and the bracket that ends it.
func (d *decoder) code(s *Status) error {
	word, err := d.keyword("]")
	if err != nil {
		return err
	}
	s.Code = imap.ResponseCode(word)
	if end, err := d.accept(']'); end || err != nil {
		return err
	}
	if err := d.space(); err != nil {
		return err
	}
	switch word {
	case "UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ", "APPENDLIMIT":
		n, err := d.number64()
		if err != nil {
			return err
		}
		s.number = uint64(n)
	case "APPENDUID", "COPYUID":
		if s.validity, err = d.nonzero(); err != nil {
			return err
		}
		if err := d.space(); err != nil {
			return err
		}
		if word == "COPYUID" {
			if s.source, err = d.uids(); err != nil {
				return err
			}
			if err := d.space(); err != nil {
				return err
			}
		}
		if s.set, err = d.uids(); err != nil {
			return err
		}
	case "MODIFIED":
		if s.set, err = d.uids(); err != nil {
			return err
		}
	case "CAPABILITY":
		if s.words, err = d.wordsTo(']'); err != nil {
			return err
		}
	case "PERMANENTFLAGS":
		if err := d.list(func() error { return d.word(&s.words) }); err != nil {
			return err
		}
	case "MAILBOXID":
		if err := d.list(func() (err error) { s.id, err = d.atom(""); return err }); err != nil {
			return err
		}
	}
	// What else a code holds is skipped up to its bracket.
	for {
		b, err := d.byte()
		switch {
		case err != nil:
			return err
		case b == ']':
			return nil
		case b == '\r', b == '\n':
			return protocol("response code without an end")
		}
	}
}

func (d *decoder) word(words *[]string) error {
	w, err := d.atom("")
	*words = append(*words, w)
	return err
}

// wordsTo reads atoms up to end, which stays.
func (d *decoder) wordsTo(end byte) ([]string, error) {
	var words []string
	for {
		w, err := d.atom(string(end))
		if err != nil {
			return nil, err
		}
		if words = append(words, w); len(words) > d.lim.Items {
			return nil, protocol("more than %d words", d.lim.Items)
		}
		if blank, err := d.accept(' '); err != nil || !blank {
			return words, err
		}
		if b, err := d.peek(); err != nil || b == end || b == '\r' {
			return words, err
		}
	}
}
