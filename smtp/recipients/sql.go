package recipients

import (
	"context"
	"fmt"
	"strings"
	"time"

	"understudy/internal/ask"
)

// sqlQuery is a fetcher that asks a database. The first column is the address.
type sqlQuery struct{ ask.Query }

var _ fetcher = (*sqlQuery)(nil)

func newSQL(sc SourceConfig) *sqlQuery {
	return &sqlQuery{ask.Query{Driver: sc.Driver, DSNFile: sc.DSNFile, Text: sc.Query}}
}

func (q *sqlQuery) fetch(ctx context.Context, l *listing) (time.Time, error) {
	asOf := time.Now()
	err := q.Rows(ctx, func(n int, columns []string) error {
		entry := strings.TrimSpace(columns[0])
		if entry == "" {
			return nil
		}
		return l.add(fmt.Sprintf("row %d", n), entry)
	})
	if err != nil {
		return time.Time{}, err
	}
	return asOf, nil
}
