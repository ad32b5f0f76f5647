package wire

import (
	"bytes"
	"fmt"
	"io"
)

// dotStuffer writes content for DATA: RFC 5321, section 4.5.2. It adds a dot in
// front of each line that begins with one, and CRLF where the last line has
// none; it changes nothing else. A bare CR or LF is an error: a server that
// takes it for a line end would see other lines than we do.
type dotStuffer struct {
	w     io.Writer
	start bool // at the start of a line
	cr    bool // the last byte was CR
}

func (d *dotStuffer) write(p []byte) error {
	for len(p) > 0 {
		if d.cr {
			if p[0] != '\n' {
				return fmt.Errorf("%w: bare CR", ErrContent)
			}
			d.cr, d.start = false, true
			if _, err := d.w.Write(p[:1]); err != nil {
				return err
			}
			p = p[1:]
			continue
		}
		if d.start && p[0] == '.' {
			if _, err := d.w.Write([]byte{'.'}); err != nil {
				return err
			}
		}
		line := p
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			line = p[:i+1]
		}
		p = p[len(line):]
		if err := d.line(line); err != nil {
			return err
		}
	}
	return nil
}

// line writes a line, or the part of one that is there.
func (d *dotStuffer) line(line []byte) error {
	text := line
	ended := line[len(line)-1] == '\n'
	switch {
	case ended && (len(line) < 2 || line[len(line)-2] != '\r'):
		return fmt.Errorf("%w: bare LF", ErrContent)
	case ended:
		text = line[:len(line)-2]
	case line[len(line)-1] == '\r':
		text, d.cr = line[:len(line)-1], true
	}
	if bytes.IndexByte(text, '\r') >= 0 {
		return fmt.Errorf("%w: bare CR", ErrContent)
	}
	d.start = ended
	_, err := d.w.Write(line)
	return err
}

// end writes the end of data.
func (d *dotStuffer) end() error {
	if d.cr {
		return fmt.Errorf("%w: bare CR", ErrContent)
	}
	last := ".\r\n"
	if !d.start {
		last = "\r\n.\r\n"
	}
	_, err := io.WriteString(d.w, last)
	return err
}

// bareBreaks says whether dotStuffer would refuse p.
func bareBreaks(p []byte) bool {
	d := dotStuffer{w: io.Discard, start: true}
	return d.write(p) != nil || d.cr
}
