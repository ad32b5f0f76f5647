package ask

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// The databases that Rows knows.
const (
	Postgres = "postgres"
	MySQL    = "mysql"
)

// Query is one question to a database.
type Query struct {
	// Driver is Postgres or MySQL.
	Driver string
	// DSNFile holds the data source name; its text is in no error.
	DSNFile string
	// Text is in the database's own SQL.
	Text string
	// Connector, where not nil, stands in for the driver.
	Connector func(dsn string) (driver.Connector, error)
}

// Rows runs the query and hands each row to row, with its number from 1 on; NULL is
// the empty text. It connects anew each time: queries are minutes apart.
func (q Query) Rows(ctx context.Context, row func(n int, columns []string) error) error {
	dsn, err := Secret(q.DSNFile)
	if err != nil {
		return err
	}
	connect := q.Connector
	if connect == nil {
		connect = func(dsn string) (driver.Connector, error) { return connectorOf(q.Driver, dsn) }
	}
	connector, err := connect(dsn)
	if err != nil {
		// The driver's error may quote the password.
		return fmt.Errorf("malformed data source name in %s", q.DSNFile)
	}
	db := sql.OpenDB(connector)
	defer db.Close() //nolint:errcheck // read only
	rows, err := db.QueryContext(ctx, q.Text)
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err is asked
	names, err := rows.Columns()
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	if len(names) == 0 {
		return errors.New("query returns no column")
	}
	cells, dest := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range cells {
		dest[i] = &cells[i]
	}
	columns := make([]string, len(names))
	for n := 1; rows.Next(); n++ {
		if err := rows.Scan(dest...); err != nil {
			return fmt.Errorf("read row %d: %w", n, err)
		}
		for i, c := range cells {
			columns[i] = c.String
		}
		if err := row(n, columns); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	return nil
}

func connectorOf(kind, dsn string) (driver.Connector, error) {
	if kind == MySQL {
		cfg, err := mysql.ParseDSN(dsn)
		if err != nil {
			return nil, err
		}
		// What has failed is in the error; the driver's own logger writes to stderr.
		cfg.Logger = &mysql.NopLogger{}
		return mysql.NewConnector(cfg)
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	return stdlib.GetConnector(*cfg), nil
}
