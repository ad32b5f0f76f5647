package replica

import (
	"errors"
	"io"
	"strings"
)

// errFlush: the stream empties a database.
var errFlush = errors.New("the stream empties a database")

// guard writes a replication stream on, and stops before a command that empties
// a database. It holds back at most the first word of a command. What it cannot
// read it passes on: the replica judges that better.
type guard struct {
	w io.Writer

	state guardState
	n     int64 // the number being read, or bytes to skip
	words int64 // words of the command that are still to come
	first bool  // the next word is the command's name
	word  []byte
	// held are bytes of a command that is not known yet, where they came in an
	// earlier write; blind is set when the stream makes no sense.
	held  []byte
	blind bool
}

type guardState uint8

const (
	atCommand guardState = iota // '*', or an empty line
	inCount                     // digits up to the line's end
	atWord                      // '$'
	inLength                    // digits up to the line's end
	inName                      // the command's name
	inWord                      // any other word
)

// longestFlush is the length of FLUSHALL; longer names are of no interest.
const longestFlush = 8

// name is the command that was read last.
func (g *guard) name() string { return strings.ToUpper(string(g.word)) }

// write passes p on.
func (g *guard) write(p []byte) error {
	if g.blind {
		_, err := g.w.Write(p)
		return err
	}
	start := 0 // of the command that is not known yet, in p
	unknown := len(g.held) > 0 || g.first
	for i := 0; i < len(p); {
		if g.state == inWord {
			skip := min(g.n, int64(len(p)-i))
			g.n -= skip
			i += int(skip)
			if g.n == 0 {
				g.wordDone()
			}
			continue
		}
		if g.state == atCommand && p[i] == '*' {
			if !unknown {
				start = i
			}
			unknown, g.first = true, true
		}
		if !g.step(p[i]) {
			g.blind = true
			break
		}
		i++
		if unknown && !g.first {
			unknown = false
			if n := g.name(); n == "FLUSHALL" || n == "FLUSHDB" || n == "SWAPDB" {
				return g.cut(p[:start])
			}
			if len(g.held) > 0 {
				if _, err := g.w.Write(g.held); err != nil {
					return err
				}
				g.held, start = g.held[:0], 0
			}
		}
	}
	if unknown && !g.blind {
		sure := p[:start]
		if len(g.held) > 0 {
			sure = nil // all of p belongs to the command that is held
		}
		g.held = append(g.held, p[len(sure):]...)
		p = sure
	} else if len(g.held) > 0 {
		p = append(g.held, p...)
		g.held = nil
	}
	if len(p) == 0 {
		return nil
	}
	_, err := g.w.Write(p)
	return err
}

// cut passes on what came before the command, and no more.
func (g *guard) cut(before []byte) error {
	if len(g.held) == 0 && len(before) > 0 {
		if _, err := g.w.Write(before); err != nil {
			return err
		}
	}
	return errFlush
}

// step reads one byte outside of a word; false where it makes no sense.
func (g *guard) step(b byte) bool {
	switch g.state {
	case atCommand:
		if b == '*' {
			g.state, g.n, g.word = inCount, 0, g.word[:0]
			return true
		}
		return b == '\n' || b == '\r'
	case inCount, inLength:
		switch {
		case b >= '0' && b <= '9' && g.n < 1<<40:
			g.n = g.n*10 + int64(b-'0')
			return true
		case b == '\r':
			return true
		case b != '\n':
			return false
		case g.state == inCount:
			g.words = g.n
			g.state = atWord
			if g.words == 0 {
				g.state, g.first = atCommand, false
			}
		case g.first && g.n <= longestFlush:
			g.state = inName
			g.n += 2
		default:
			g.first = false
			g.state = inWord
			g.n += 2
		}
		return true
	case atWord:
		g.state, g.n = inLength, 0
		return b == '$'
	case inName:
		g.n--
		if g.n >= 2 {
			g.word = append(g.word, b)
		}
		if g.n == 0 {
			g.first = false
			g.wordDone()
		}
		return true
	case inWord:
		return true
	}
	return false
}

// wordDone moves to the next word, or command.
func (g *guard) wordDone() {
	g.words--
	g.state = atWord
	if g.words == 0 {
		g.state = atCommand
	}
}
