package admin

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"understudy/spamsync/replica/merge"
)

// SpamMerger is a Spam whose shared state is replicated. Methods may be called
// concurrently and retried.
type SpamMerger interface {
	// MergeSpam carries to home what was written here while home was away, and
	// returns when it is done. dryRun only says what would be done; yes approves what
	// the state says that it waits for. An Error with CodeConflict where there is
	// nothing to merge, or where it needs a yes.
	MergeSpam(ctx context.Context, dryRun, yes bool) (SpamMerge, error)
}

// SpamMerge is what a merge did, or would do.
type SpamMerge struct {
	Text string `json:"text"`
	// Report is nil where nothing was counted.
	Report *merge.Report `json:"report,omitempty"`
}

// SpamReplica is the replication of the shared state.
type SpamReplica struct {
	// State is "starting", "home", "following", "detached", "merging" or "moving".
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Home is the site whose Redis takes the writes where all is well; Writes is where
	// they go now, empty is nowhere.
	Home     string `json:"home"`
	Endpoint string `json:"endpoint"`
	Writes   string `json:"writes_to"`
	// Connections are carried by the endpoint, Refused were not.
	Connections int    `json:"connections"`
	Refused     uint64 `json:"refused"`
	LagBytes    int64  `json:"lag_bytes"`
	// LagSeconds is how long this copy has been behind.
	LagSeconds          float64 `json:"lag_seconds"`
	WriteBytesPerSecond float64 `json:"write_bytes_per_second"`
	// Busy is what is being done; Failure how the last action failed.
	Busy    string `json:"busy,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Relation is how this copy is related to home, Fork where both parted.
	Relation   string           `json:"relation,omitempty"`
	Fork       string           `json:"fork,omitempty"`
	Conditions []SpamCondition  `json:"conditions"`
	Local      SpamRedis        `json:"local"`
	Peer       SpamRedis        `json:"peer"`
	Journal    SpamRedisJournal `json:"journal"`
	Merge      *merge.Report    `json:"last_merge,omitempty"`
}

// SpamCondition is something an operator should know.
type SpamCondition struct {
	Key  string `json:"key"`
	Text string `json:"text"`
	// Ask says that it waits for `spam merge --yes`.
	Ask bool `json:"ask,omitempty"`
}

// SpamRedis is one of the two Redis.
type SpamRedis struct {
	Address string `json:"address"`
	Up      bool   `json:"up"`
	Trouble string `json:"trouble,omitempty"`
	Role    string `json:"role,omitempty"`
	Follows string `json:"follows,omitempty"`
	LinkUp  bool   `json:"link_up,omitempty"`
	ID      string `json:"id,omitempty"`
	Offset  int64  `json:"offset"`
	Keys    int64  `json:"keys"`
	// Replicas is how many others follow it.
	Replicas int `json:"replicas"`
}

// SpamRedisJournal is the journal of this site's Redis.
type SpamRedisJournal struct {
	Following bool      `json:"following"`
	Error     string    `json:"error,omitempty"`
	Bytes     int64     `json:"bytes"`
	Oldest    time.Time `json:"oldest,omitzero"`
	Gaps      int       `json:"gaps"`
}

func (s *Server) mergeSpam(w http.ResponseWriter, r *http.Request) error {
	m, ok := s.deps.Spam.(SpamMerger)
	if !ok {
		return notConfigured("a spam filter")
	}
	q := r.URL.Query()
	flag := func(name string) (bool, error) {
		if q.Get(name) == "" {
			return false, nil
		}
		b, err := strconv.ParseBool(q.Get(name))
		if err != nil {
			return false, badRequest("%s: %.20q is neither true nor false", name, q.Get(name))
		}
		return b, nil
	}
	dryRun, err := flag("dry_run")
	if err != nil {
		return err
	}
	yes, err := flag("yes")
	if err != nil {
		return err
	}
	answer, err := m.MergeSpam(r.Context(), dryRun, yes)
	if !dryRun {
		s.audit(r.Context(), "merge spam state", nil, 1, err, slog.Bool("yes", yes))
	}
	if err != nil {
		return err
	}
	return writeJSON(w, answer)
}

// MergeSpam has the daemon merge the shared spam state.
func (c *Client) MergeSpam(ctx context.Context, dryRun, yes bool) (SpamMerge, error) {
	var out SpamMerge
	v := url.Values{"dry_run": {strconv.FormatBool(dryRun)}, "yes": {strconv.FormatBool(yes)}}
	return out, c.call(ctx, http.MethodPost, "/v1/spam/merge?"+v.Encode(), nil, &out)
}
