package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"time"

	"understudy/internal/config"
	"understudy/smtp"
	"understudy/spamsync"
	"understudy/spamsync/engine"
	"understudy/spamsync/engine/builtin"
	"understudy/spamsync/learn"
	"understudy/spamsync/parity"
	"understudy/spamsync/replica"
)

// stopSpam bounds how long learning and comparing may take to end: one message
// that is being learned is waited for.
const stopSpam = 5 * time.Second

// spam is everything around judging mail. What is not used is nil.
type spam struct {
	cfg      config.Spam
	set      *engine.Set
	state    spamsync.State
	builtin  *builtin.Filter
	greylist *spamsync.Greylist
	learn    *learn.Queue
	parity   *parity.Schedule
	replica  *replica.Keeper
	// explain asks Rspamd without side effects.
	explain *parity.Rspamd

	closers []func() error
}

// buildSpam makes the filter that the front asks; nil where mail is not judged.
func (d *Daemon) buildSpam(cfg config.Config) (smtp.Filter, error) {
	if !cfg.Spam.On() && !cfg.Spam.Redis.Replicates() {
		return nil, nil
	}
	s := &spam{cfg: cfg.Spam}
	if err := s.build(d, cfg); err != nil {
		return nil, fmt.Errorf("spam: %w", errors.Join(err, s.close()))
	}
	d.spam = s
	return s.set.Filter(), nil
}

func (s *spam) build(d *Daemon, cfg config.Config) error {
	var err error
	dir := filepath.Join(cfg.DataDir, "spam")
	learners := s.cfg.Learners()
	if s.cfg.UsesBuiltin() || slices.Contains(learners, learn.Builtin) {
		if err := s.buildBuiltin(d, cfg, filepath.Join(dir, "greylist")); err != nil {
			return err
		}
	}
	deps := engine.Deps{Hostname: cfg.SMTP.Hostname, Alarms: d.alarms, Logger: d.log, Registerer: d.registry}
	if s.builtin != nil {
		deps.Builtin = s.builtin
	}
	if s.set, err = engine.New(s.cfg.Engine, deps); err != nil {
		return err
	}
	s.closers = append(s.closers, s.set.Close)
	if s.cfg.Engine.Engine == engine.Rspamd {
		s.explain = parity.NewRspamd(s.cfg.EngineURL(), s.cfg.Engine.Timeout)
		s.explain.PasswordFile, s.explain.Disable = s.cfg.Engine.Rspamd.PasswordFile, s.cfg.Parity.Disable
		s.closers = append(s.closers, func() error { s.explain.Close(); return nil })
	}
	if err := s.buildReplica(d, cfg, filepath.Join(dir, "replica")); err != nil {
		return err
	}
	if err := s.buildLearn(d, learners, filepath.Join(dir, "learn")); err != nil {
		return err
	}
	return s.buildParity(d, cfg)
}

// buildBuiltin makes the builtin engine and the state behind it.
func (s *spam) buildBuiltin(d *Daemon, cfg config.Config, dir string) error {
	if s.cfg.Redis.Address == "" {
		d.log.Warn("the builtin filter keeps its state in memory: spam.redis.address names no server")
		s.state = spamsync.NewMemory(nil)
	} else {
		state, closeState, err := spamsync.OpenRedis(s.cfg.Redis.RedisConfig)
		if err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		s.state, s.closers = state, append(s.closers, closeState)
	}
	if s.cfg.Builtin.Greylist.Enabled {
		journal, err := spamsync.OpenGreyJournal(dir, nil, d.log, d.registry)
		if err != nil {
			return err
		}
		s.closers = append(s.closers, journal.Close)
		s.greylist = spamsync.NewGreylist(s.state, s.cfg.Builtin.Greylist, journal, d.log)
	}
	var err error
	s.builtin, err = builtin.New(s.cfg.Builtin, builtin.Deps{
		Hostname: cfg.SMTP.Hostname, Domains: cfg.Domains, State: s.state, Greylist: s.greylist,
		Resolver: net.DefaultResolver, Alarms: d.alarms, Logger: d.log, Registerer: d.registry,
	})
	if err != nil {
		return fmt.Errorf("builtin: %w", err)
	}
	return nil
}

// buildLearn makes the learn queue where something learns.
func (s *spam) buildLearn(d *Daemon, learners []string, dir string) error {
	var teachers learn.All
	for _, name := range learners {
		t, err := s.teacher(name)
		if err != nil {
			return fmt.Errorf("learn: %w", err)
		}
		teachers = append(teachers, t)
	}
	if len(teachers) == 0 {
		return nil
	}
	deps := learn.Deps{Dir: dir, Teacher: teachers, Alarms: d.alarms, Logger: d.log, Registerer: d.registry}
	if s.cfg.Redis.Address != "" {
		client, err := spamsync.OpenClient(s.cfg.Redis.RedisConfig, s.cfg.Redis.WritesTo())
		if err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		s.closers = append(s.closers, client.Close)
		deps.Home = learn.RedisHome(client, s.cfg.Redis.Timeout)
	}
	var err error
	if s.learn, err = learn.Open(s.cfg.Learn, deps); err != nil {
		return err
	}
	s.closers = append(s.closers, s.learn.Close)
	return nil
}

func (s *spam) teacher(name string) (learn.Teacher, error) {
	switch name {
	case learn.Rspamd:
		t, err := learn.NewRspamd(cmp.Or(s.cfg.Learn.URL, "http://127.0.0.1:11334"), s.cfg.Learn.PasswordFile)
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, func() error { t.Close(); return nil })
		return t, nil
	case learn.Spamd:
		address := s.cfg.Learn.URL
		if address == "" && s.cfg.Engine.Engine == engine.Spamd && len(s.cfg.Engine.URL) > 0 {
			address = s.cfg.Engine.URL[0]
		}
		return learn.NewSpamd(cmp.Or(address, "127.0.0.1:783"), s.cfg.Engine.Spamd.User)
	case learn.Builtin:
		return learn.ClassifierTeacher{Classifier: &spamsync.Classifier{State: s.state, MinLearns: s.cfg.Builtin.Bayes.MinLearns}}, nil
	}
	return nil, fmt.Errorf("nothing teaches %q", name)
}

// buildParity makes the schedule of comparisons where there is one.
func (s *spam) buildParity(d *Daemon, cfg config.Config) error {
	if s.cfg.Parity.Interval == 0 {
		return nil
	}
	c, closeParity, err := OpenParity(cfg)
	if err != nil {
		return fmt.Errorf("parity: %w", err)
	}
	s.closers = append(s.closers, closeParity)
	s.parity, err = parity.NewSchedule(s.cfg.Parity, c, d.alarms, d.log, d.registry)
	return err
}

// close undoes build.
func (s *spam) close() error {
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// startSpam starts what remembers, learns and compares.
func (d *Daemon) startSpam(run func(string, time.Duration, func(context.Context) error), undo *stack) {
	if d.spam == nil {
		return
	}
	undo.push("filters", stopSpam, func(context.Context) error { return d.spam.close() })
	if d.spam.replica != nil {
		run("spam replication", stopSpam, d.runReplica)
	}
	if d.spam.greylist != nil {
		run("greylist", stopSpam, d.spam.greylist.Run)
	}
	if d.spam.learn != nil {
		run("learning", stopSpam, d.spam.learn.Run)
	}
	if d.spam.parity != nil {
		run("parity", stopSpam, d.spam.parity.Run)
	}
}
