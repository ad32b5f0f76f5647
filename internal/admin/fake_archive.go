package admin

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"understudy/smtp/queue"
)

// exportFake writes ID.json and ID.eml of every message as a tar.
func exportFake(f *Fake, w io.Writer, list []queue.Summary) error {
	tw := tar.NewWriter(w)
	for _, m := range list {
		meta, err := json.Marshal(m)
		if err != nil {
			return err
		}
		f.mu.Lock()
		body := f.messages[m.ID].body
		f.mu.Unlock()
		for _, part := range []struct {
			name string
			data []byte
		}{{m.ID + ".json", meta}, {m.ID + ".eml", body}} {
			if err := tw.WriteHeader(&tar.Header{Name: part.name, Mode: 0o600, Size: int64(len(part.data))}); err != nil {
				return err
			}
			if _, err := tw.Write(part.data); err != nil {
				return err
			}
		}
	}
	return tw.Close()
}

// fakeReader reads what exportFake wrote.
type fakeReader struct{ tar *tar.Reader }

// next returns the next message, or io.EOF.
func (r fakeReader) next() (m queue.Summary, body []byte, err error) {
	meta, err := r.part(".json")
	if err != nil {
		return m, nil, err
	}
	if err := json.Unmarshal(meta, &m); err != nil {
		return m, nil, err
	}
	body, err = r.part(".eml")
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return m, body, err
}

func (r fakeReader) part(suffix string) ([]byte, error) {
	h, err := r.tar.Next()
	if err != nil {
		return nil, err
	}
	if len(h.Name) <= len(suffix) || h.Name[len(h.Name)-len(suffix):] != suffix {
		return nil, fmt.Errorf("unexpected entry %q, want one ending in %s", h.Name, suffix)
	}
	return io.ReadAll(io.LimitReader(r.tar, maxRequestBytes))
}
