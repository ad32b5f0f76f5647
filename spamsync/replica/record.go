package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"understudy/internal/durable"
	"understudy/spamsync/replica/stream"
)

// recordName is the file in the keeper's directory.
const recordName = "replica.json"

// record is what must be known after a restart.
type record struct {
	// Mark is the dataset that was followed.
	Mark string `json:"dataset,omitempty"`
	// Fork is where this site detached, and Since when; zero while it has not.
	Fork  stream.Point `json:"fork,omitzero"`
	Since time.Time    `json:"detached,omitzero"`
	// Merged is the last merge that was finished.
	Merged time.Time `json:"merged,omitzero"`
}

// readRecord reads the record of dir; a directory without one has the zero record.
func readRecord(dir string) (record, error) {
	var r record
	text, err := os.ReadFile(filepath.Join(dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return record{}, fmt.Errorf("read record of replication: %w", err)
	}
	return r, nil
}

// write replaces the record durably.
func (r record) write(dir string) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = durable.WriteFile(durable.OS(), filepath.Join(dir, recordName), 0o600, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write record of replication: %w", err)
	}
	return nil
}
