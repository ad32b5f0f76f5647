package ask

import (
	"crypto/x509"
	"fmt"
	"os"
	"strings"
)

// Secret returns the text of a file without the newline at its end; nothing for
// an empty path.
func Secret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// Authorities returns the certificates that a server's is checked against; nil,
// the system's, for an empty path.
func Authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("authorities: %s holds no certificate", path)
	}
	return pool, nil
}
