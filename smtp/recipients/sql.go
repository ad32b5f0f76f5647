package recipients

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// sqlQuery is a fetcher that asks a database. It connects anew for each query:
// they are minutes apart.
type sqlQuery struct {
	connector func(dsn string) (driver.Connector, error)
	dsnFile   string
	query     string
}

var _ fetcher = (*sqlQuery)(nil)

func newSQL(sc SourceConfig) *sqlQuery {
	q := &sqlQuery{dsnFile: sc.DSNFile, query: sc.Query, connector: postgresConnector}
	if sc.Driver == "mysql" {
		q.connector = mysqlConnector
	}
	return q
}

func postgresConnector(dsn string) (driver.Connector, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	return stdlib.GetConnector(*cfg), nil
}

func mysqlConnector(dsn string) (driver.Connector, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	// What has failed is in the error; the driver's own logger writes to stderr.
	cfg.Logger = &mysql.NopLogger{}
	return mysql.NewConnector(cfg)
}

func (q *sqlQuery) fetch(ctx context.Context, l *listing) (time.Time, error) {
	dsn, err := secret(q.dsnFile)
	if err != nil {
		return time.Time{}, err
	}
	connector, err := q.connector(dsn)
	if err != nil {
		// The driver's error may quote the password.
		return time.Time{}, fmt.Errorf("malformed data source name in %s", q.dsnFile)
	}
	db := sql.OpenDB(connector)
	defer db.Close() //nolint:errcheck // read only
	asOf := time.Now()
	rows, err := db.QueryContext(ctx, q.query)
	if err != nil {
		return time.Time{}, fmt.Errorf("query: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err is asked
	columns, err := rows.Columns()
	if err != nil {
		return time.Time{}, fmt.Errorf("query: %w", err)
	}
	if len(columns) == 0 {
		return time.Time{}, fmt.Errorf("query returns no column")
	}
	var address sql.NullString
	dest := make([]any, len(columns))
	dest[0] = &address
	for i := range dest[1:] {
		dest[i+1] = new(any)
	}
	for n := 1; rows.Next(); n++ {
		if err := rows.Scan(dest...); err != nil {
			return time.Time{}, fmt.Errorf("read row %d: %w", n, err)
		}
		entry := strings.TrimSpace(address.String)
		if !address.Valid || entry == "" {
			continue
		}
		if err := l.add(fmt.Sprintf("row %d", n), entry); err != nil {
			return time.Time{}, err
		}
	}
	if err := rows.Err(); err != nil {
		return time.Time{}, fmt.Errorf("read rows: %w", err)
	}
	return asOf, nil
}
