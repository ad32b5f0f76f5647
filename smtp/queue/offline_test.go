package queue

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

// tree is all that is below a directory, with times.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(name)
		out[name] = info.ModTime().Format(time.RFC3339Nano) + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOfflineReadsAndWritesNothing(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	if _, err := OpenOffline(cfg.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	r := start(t, cfg, Deps{})
	small := r.put(envelope("s@x.example", "a@y.example"), "small")
	r.take().Done([]smtp.Result{result(0, smtp.Deferred, "busy")})
	big := r.put(envelope("s@x.example", "b@y.example"), strings.Repeat("big", 50_000))
	r.apply(Hold, Selection{IDs: []string{big}}, ApplyOptions{})
	m, err := r.lookup(small)
	if err != nil {
		t.Fatal(err)
	}
	segment := m.pos.Segment
	r.stop()
	// A dead daemon leaves torn and damaged things behind.
	if err := os.WriteFile(filepath.Join(cfg.Dir, "spill", ident{5}.String()), []byte("a draft"), 0o600); err != nil {
		t.Fatal(err)
	}
	name, err := filepath.Glob(filepath.Join(cfg.Dir, "log", "*"))
	if err != nil || len(name) == 0 || segment == 0 {
		t.Fatalf("log files %v, %v", name, err)
	}
	before := tree(t, cfg.Dir)
	o, err := OpenOffline(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := o.List(t.Context(), Selection{})
	if err != nil || len(list) != 2 || list[0].LastError != "450 busy" || list[1].State != Held {
		t.Errorf("%+v, %v", list, err)
	}
	d, err := o.Show(t.Context(), small)
	if err != nil || d.Envelope == nil || len(d.History) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if got := bodyOf(t, o, big); len(got) != 16+150_000 {
		t.Errorf("body has %d bytes", len(got))
	}
	if st, err := o.Stats(t.Context()); err != nil || st.Messages != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	var tape bytes.Buffer
	if n, err := o.Export(t.Context(), &tape, Selection{}); err != nil || n != 2 {
		t.Errorf("exported %d, %v", n, err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	after := tree(t, cfg.Dir)
	for name, was := range before {
		if after[name] != was {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files, before %d", len(after), len(before))
	}
	other := start(t, testConfig(t.TempDir()), Deps{})
	if c, err := other.Import(t.Context(), &tape); err != nil || c.Count != 2 || c.IDs[0] != small {
		t.Errorf("imported %+v, %v", c, err)
	}
}

func TestReadOnlyForgetsWrites(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	start(t, cfg, Deps{}).stop()
	before := tree(t, cfg.Dir)
	ro := readOnly{newSpool(cfg, Deps{}).fs}
	for name, flag := range map[string]int{
		"new": os.O_RDWR | os.O_CREATE, "index-0000000000000001": os.O_RDWR, "index-0000000000000002": os.O_RDWR | os.O_CREATE | os.O_TRUNC,
	} {
		f, err := ro.OpenFile(filepath.Join(cfg.Dir, name), flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		n, err := f.WriteAt([]byte("written"), 0)
		if err = errors.Join(err, f.Sync(), f.Allocate(1<<20), f.Truncate(0), f.Close()); err != nil || n != 7 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	if _, err := ro.OpenFile(filepath.Join(cfg.Dir, "absent"), os.O_RDONLY, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that does not exist: %v", err)
	}
	if err := errors.Join(ro.Remove("x"), ro.Rename("x", "y"), ro.MkdirAll("x", 0), ro.SyncDir("x")); err != nil {
		t.Error(err)
	}
	if after := tree(t, cfg.Dir); len(after) != len(before) {
		t.Errorf("%d files, before %d", len(after), len(before))
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	r := start(t, testConfig(t.TempDir()), Deps{Registerer: reg})
	r.put(envelope("s@x.example", "a@y.example", "b@y.example"), "body")
	r.take().Done([]smtp.Result{result(0, smtp.Delivered, "ok"), result(1, smtp.Refused, "no")})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"understudy_queue_messages refused": 1, "understudy_queue_messages queued": 0, "understudy_queue_bytes refused": 20,
		"understudy_queue_accepted_total": 1, "understudy_queue_results_total sent": 1, "understudy_queue_results_total refused": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	r.stop()
	if families, err := reg.Gather(); err != nil {
		t.Error(err)
	} else {
		for _, f := range families {
			if strings.HasPrefix(f.GetName(), "understudy_queue_") {
				t.Errorf("%s is still there after Run has ended", f.GetName())
			}
		}
	}
}

// TestDamagedSpillFile: the last bytes are not given away, and the message is held.
func TestDamagedSpillFile(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	alarms := &recorder{}
	r := start(t, cfg, Deps{Alarms: alarms})
	id := r.put(envelope("s@x.example", "a@y.example"), strings.Repeat("big", 50_000))
	m, err := r.lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(r.spillPath(m.spill.name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("X"), 77)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	d := r.take()
	body, size, err := d.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, body)
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	if !errors.Is(err, ErrDamaged) || n >= size {
		t.Errorf("read %d of %d bytes, %v", n, size, err)
	}
	if got := r.show(id); got.State != Held {
		t.Errorf("it is %s", got.State)
	}
	r.apply(Release, Selection{IDs: []string{id}}, ApplyOptions{})
	if list, err := r.List(t.Context(), Selection{States: []State{Active}}); err != nil || len(list) != 1 {
		t.Errorf("released while on loan: %+v, %v", list, err)
	}
	d.Done(nil)
	if err := os.Remove(r.spillPath(m.spill.name)); err != nil {
		t.Fatal(err)
	}
	d = r.take()
	if _, _, err := d.Open(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open without the file: %v", err)
	}
	d.Done([]smtp.Result{result(0, smtp.Deferred, "cannot read it")})
	if got := r.show(id); got.State != Held || alarms.text("queue:damaged") == "" {
		t.Errorf("it is %s, alarm %q", got.State, alarms.text("queue:damaged"))
	}
	r.stop()
	r = start(t, cfg, Deps{})
	if got := r.show(id); got.State != Held {
		t.Errorf("after a restart it is %s", got.State)
	}
}
