package stream

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Errors of this package. They come wrapped; test them with errors.Is.
var (
	// ErrNotCovered: the commands after the wanted point are not to be had here.
	ErrNotCovered = errors.New("the commands after that point are gone")
	// ErrProtocol: what arrived is not a replication stream, or a command in it is
	// larger than allowed.
	ErrProtocol = errors.New("not a replication stream")
	// ErrRefused: the server answered with an error; its words follow.
	ErrRefused = errors.New("redis refused")
)

// Point is a place in a history of a Redis server.
type Point struct {
	// ID is the replication id, 40 hexadecimal digits.
	ID string
	// Offset is the number of bytes of the history before this place.
	Offset int64
}

// IsZero says that p is no place at all.
func (p Point) IsZero() bool { return p == Point{} }

// String is id:offset; ParsePoint reads it.
func (p Point) String() string { return p.ID + ":" + strconv.FormatInt(p.Offset, 10) }

// ParsePoint reads what String wrote.
func ParsePoint(s string) (Point, error) {
	id, text, ok := strings.Cut(s, ":")
	offset, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || offset < 0 || id == "" {
		return Point{}, fmt.Errorf("point %q: want id:offset", s)
	}
	return Point{ID: id, Offset: offset}, nil
}

// FullResyncError is the answer of a server that does not have the wanted bytes
// any more (or never had them). It is an ErrNotCovered.
type FullResyncError struct {
	// Now is where the server is. A PSYNC from there needs no data set.
	Now Point
}

// Error implements error.
func (e *FullResyncError) Error() string {
	return fmt.Sprintf("%v: redis is at %v and offers a full copy", ErrNotCovered, e.Now)
}

// Unwrap makes it an ErrNotCovered.
func (e *FullResyncError) Unwrap() error { return ErrNotCovered }

// UnknownDB is the number of the database before the first SELECT was seen.
const UnknownDB = -1

// Command is one command of a stream.
type Command struct {
	// ID is the history, and Offset and End the places before and after the command:
	// a server that has executed it is at End.
	ID          string
	Offset, End int64
	// DB is the database it works on, UnknownDB where no SELECT was seen yet.
	DB int
	// InTx: it stands between a MULTI and its EXEC. Neither of the two is InTx.
	InTx bool
	// Args are the words; empty for a bare newline. Raw are the bytes. Both are
	// valid until the next command is read.
	Args [][]byte
	Raw  []byte
}

// At is the place after the command.
func (c Command) At() Point { return Point{ID: c.ID, Offset: c.End} }

// Name is the first word in capitals; empty for a bare newline.
func (c Command) Name() string {
	if len(c.Args) == 0 {
		return ""
	}
	return string(bytes.ToUpper(c.Args[0]))
}

// Is says whether the first word is name (which is in capitals). It does not allocate.
func (c Command) Is(name string) bool {
	return len(c.Args) > 0 && len(c.Args[0]) == len(name) && bytes.EqualFold(c.Args[0], []byte(name))
}

// Clone returns a copy that stays valid.
func (c Command) Clone() Command {
	total := 0
	for _, a := range c.Args {
		total += len(a)
	}
	words := make([]byte, 0, total)
	args := make([][]byte, len(c.Args))
	for i, a := range c.Args {
		from := len(words)
		words = append(words, a...)
		args[i] = words[from:len(words):len(words)]
	}
	c.Raw, c.Args = slices.Clone(c.Raw), args
	return c
}
