package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"understudy/integration/lab"
)

// domain is where all mail of the benchmark goes.
const domain = "example.test"

// system is one of the rivals. A cell makes it, sets its next hop, starts it.
type system interface {
	// start starts the system with a next hop and the number of connections it
	// may open to it.
	start(nextHop string, concurrency int)
	addr() string
	// queued is the number of messages in its queue.
	queued() int
	// flush sends everything queued on its way, now.
	flush()
	// pids are the processes whose memory counts.
	pids() []int
}

func newSystem(h *lab.Program, name string) system {
	if name == "postfix" {
		return &postfix{host: h}
	}
	return &understudy{host: h}
}

type postfix struct {
	host *lab.Program
	p    *lab.Postfix
}

func (s *postfix) start(nextHop string, concurrency int) {
	addr, port, _ := strings.Cut(nextHop, ":")
	s.p = lab.NewPostfix(s.host, lab.PostfixConfig{Quiet: true, Main: map[string]string{
		"relay_domains":                         domain,
		"relayhost":                             "[" + addr + "]:" + port,
		"default_transport":                     "smtp",
		"relay_transport":                       "smtp",
		"smtpd_relay_restrictions":              "permit_mynetworks, reject",
		"smtpd_end_of_data_restrictions":        "check_client_access static:HOLD",
		"default_destination_concurrency_limit": strconv.Itoa(concurrency),
	}})
	s.p.Start()
}

func (s *postfix) addr() string { return s.p.Addr }
func (s *postfix) queued() int  { return s.p.Queued() }
func (s *postfix) flush()       { s.p.Release() }
func (s *postfix) pids() []int  { return tree(s.p.Master()) }

type understudy struct {
	host *lab.Program
	u    *lab.Understudy
}

func (s *understudy) start(nextHop string, concurrency int) {
	s.u = lab.NewUnderstudy(s.host, "smtp://"+nextHop, lab.Settings{
		"smtp.deliver.connections": concurrency,
		"log.level":                "warn",
		// Postfix is measured without DNS, so we are too.
		"smtp.reverse_timeout": "0s",
	})
	s.u.Start()
}

func (s *understudy) addr() string { return s.u.SMTP }
func (s *understudy) queued() int  { return len(s.u.Queue()) }
func (s *understudy) flush()       { s.u.CLI("queue", "flush") }
func (s *understudy) pids() []int  { return tree(s.u.PID()) }

// tree lists a process and all its descendants.
func tree(root int) []int {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range dirs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (name) state ppid; the name may hold anything (proc(5)).
		_, rest, ok := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// pss is the proportional set size of processes in MiB, which counts shared
// pages once.
func pss(pids []int) float64 {
	total := 0
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		if err != nil {
			continue // it ended meanwhile
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.Atoi(strings.Fields(value)[0])
				total += kib
			}
		}
	}
	return float64(total) / 1024
}

// peakPSS samples a system's memory every 0.4 s until stopped.
func peakPSS(s system) (stop func() float64) {
	end, peak := make(chan struct{}), make(chan float64)
	go func() {
		tick := time.NewTicker(400 * time.Millisecond)
		defer tick.Stop()
		top := pss(s.pids())
		for {
			select {
			case <-tick.C:
				top = max(top, pss(s.pids()))
			case <-end:
				peak <- max(top, pss(s.pids()))
				return
			}
		}
	}()
	return func() float64 {
		close(end)
		return <-peak
	}
}
