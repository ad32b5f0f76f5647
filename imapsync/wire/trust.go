package wire

import "crypto/tls"

// Trust returns how the certificate of another service on the same server is
// verified (ManageSieve), and whether the server is this machine, where plain text
// harms nobody.
func (c Config) Trust() (conf *tls.Config, host string, loopback bool, err error) {
	e, err := c.endpoint()
	if err != nil {
		return nil, "", false, err
	}
	if conf, err = c.tlsConfig(e); err != nil {
		return nil, "", false, err
	}
	conf.NextProtos = nil
	return conf, e.host, e.loopback, nil
}
