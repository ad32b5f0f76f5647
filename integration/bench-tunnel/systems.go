package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// system is one way from the client to the server.
type system struct {
	name string
	addr string // where clients connect
	pids []int  // the processes whose CPU and memory count
}

// systems are what is compared, in this order.
func systems() []string {
	return []string{"direct", "haproxy TCP", "haproxy TLS", "understudy"}
}

// startSystem puts a way in front of a server. rtt is that of the line between the
// sites; with direct, between client and server.
func startSystem(h *lab.Program, name, server string, rtt time.Duration) *system {
	line := func(to string) string {
		if rtt == 0 {
			return to
		}
		return lab.StartDelay(h, "", to, rtt).Addr
	}
	switch name {
	case "direct":
		return &system{name: name, addr: line(server)}
	case "haproxy TCP":
		return haproxyTCP(h, line(server))
	case "haproxy TLS":
		return haproxyTLS(h, server, line)
	case "understudy":
		return understudy(h, server, line)
	}
	h.Fatalf("no system %q", name)
	return nil
}

// spawn runs a process until the end of the cell.
func spawn(h *lab.Program, log, name string, args ...string) int {
	out, err := os.Create(log)
	if err != nil {
		h.Fatalf("%v", err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(name, args...) //nolint:noctx // ended in the cleanup below
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		h.Fatalf("start %s: %v", name, err)
	}
	h.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// answers waits until the server's banner comes through.
func answers(h *lab.Program, addr string) {
	lab.Wait(h, 20*time.Second, "the way is open", func() error {
		c, _, err := connect(addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

const haproxyHead = `global
  maxconn 4000
  nbthread 2
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
`

func haproxy(h *lab.Program, dir, name, text string) int {
	path, err := require.Find("haproxy")
	if err != nil {
		h.Fatalf("%v", err)
	}
	file := filepath.Join(dir, name+".cfg")
	if err := os.WriteFile(file, []byte(haproxyHead+text), 0o644); err != nil {
		h.Fatalf("%v", err)
	}
	return spawn(h, filepath.Join(dir, name+".log"), path, "-db", "-f", file)
}

func haproxyTCP(h *lab.Program, server string) *system {
	dir, addr := lab.Dir(h), lab.FreeAddr(h)
	pid := haproxy(h, dir, "one", fmt.Sprintf("listen one\n  bind %s\n  server s %s send-proxy-v2\n", addr, server))
	answers(h, addr)
	return &system{name: "haproxy TCP", addr: addr, pids: []int{pid}}
}

// haproxyTLS is the baseline of two hops: mutual TLS 1.3 and PROXY v2, as an
// operator would configure it.
func haproxyTLS(h *lab.Program, server string, line func(string) string) *system {
	dir, addr, far := lab.Dir(h), lab.FreeAddr(h), lab.FreeAddr(h)
	pemFile := filepath.Join(dir, "both.pem")
	if err := os.WriteFile(pemFile, certificate(h), 0o600); err != nil {
		h.Fatalf("%v", err)
	}
	exit := haproxy(h, dir, "exit", fmt.Sprintf(
		"listen exit\n  bind %s ssl crt %s ca-file %s verify required accept-proxy ssl-min-ver TLSv1.3\n  server s %s send-proxy-v2\n", far, pemFile, pemFile, server))
	entry := haproxy(h, dir, "entry", fmt.Sprintf(
		"listen entry\n  bind %s\n  server s %s send-proxy-v2 ssl ca-file %s crt %s verify required verifyhost peer-b ssl-min-ver TLSv1.3\n", addr, line(far), pemFile, pemFile))
	answers(h, addr)
	return &system{name: "haproxy TLS", addr: addr, pids: []int{entry, exit}}
}

// certificate is its own authority, for both sides.
func certificate(h *lab.Program) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.Fatalf("%v", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer-b"}, DNSNames: []string{"peer-b"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		h.Fatalf("%v", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		h.Fatalf("%v", err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
}

// understudy is two daemons as they are shipped: site b is standby and carries
// clients to site a.
func understudy(h *lab.Program, server string, line func(string) string) *system {
	addr, far := lab.FreeAddr(h), lab.FreeAddr(h)
	var sites [2]*lab.Understudy
	var pins [2]string
	for i, site := range []string{"a", "b"} {
		set := lab.Settings{
			"site": site, "smtp.deliver.local": "smtp://127.0.0.1:9", "peer.listen": far,
			"tunnel.services.bench.local": server, "tunnel.services.bench.protocol": "raw",
			"tunnel.services.bench.max_per_client": 100000, "tunnel.services.bench.max_connections": 100000,
		}
		if site == "b" {
			delete(set, "peer.listen")
			set["peer.address"] = line(far)
			set["tunnel.services.bench.listen"] = addr
		}
		sites[i] = lab.NewUnderstudy(h, "smtp://127.0.0.1:9", set)
		out, _ := sites[i].CLI("peer", "init", "--json")
		var made struct{ Pin string }
		if err := json.Unmarshal([]byte(out), &made); err != nil {
			h.Fatalf("peer init: %v", err)
		}
		pins[i] = made.Pin
	}
	for i, s := range sites {
		s.Set(lab.Settings{"peer.pins": pins[1-i]})
		s.Start()
	}
	answers(h, addr)
	return &system{name: "understudy", addr: addr, pids: []int{sites[1].PID(), sites[0].PID()}}
}

// cpu is the processor time that the processes have used.
func (s *system) cpu() (time.Duration, error) {
	var ticks int64
	for _, pid := range s.pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, i := range []int{11, 12} { // utime and stime, proc(5)
			n, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100
}

// rss is the resident memory of the processes, in bytes.
func (s *system) rss() (int64, error) {
	var sum int64
	for _, pid := range s.pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(text), "VmRSS:")
		if !ok {
			return 0, errors.New("no VmRSS")
		}
		kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += kb << 10
	}
	return sum, nil
}
