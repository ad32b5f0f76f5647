package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// httpProbe fetches a page and looks for a text in it.
type httpProbe struct{ c Config }

func (p httpProbe) try(ctx context.Context) error {
	transport := &http.Transport{
		DisableKeepAlives: true, // a new connection, as a new user has it
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if p.c.Address != "" {
				addr = p.c.Address
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, ServerName: p.c.ServerName,
			InsecureSkipVerify: p.c.InsecureTLS, //nolint:gosec // the operator asked for it
		},
		MaxResponseHeaderBytes: maxDialogueBytes,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return errors.New("more than three redirects")
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.c.URL, http.NoBody)
	if err != nil {
		return at("request", err)
	}
	req.Header.Set("User-Agent", "understudy-probe")
	resp, err := client.Do(req)
	if err != nil {
		return at("GET", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDialogueBytes))
	switch {
	case err != nil:
		return at("page", err)
	case resp.StatusCode != http.StatusOK:
		return at("GET", fmt.Errorf("%.100s", resp.Status))
	case !bytes.Contains(body, []byte(p.c.Expect)):
		return at("page", fmt.Errorf("%q is not in it", p.c.Expect))
	}
	return nil
}
