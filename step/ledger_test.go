package step_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"bake/step"
)

func create(t *testing.T, dir string) *step.FileLedger {
	t.Helper()
	l, err := step.CreateLedger(dir, step.Header{Run: "run-1", PID: 42, Command: "bake build ."})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func owned(t *testing.T, l step.Ledger) string {
	t.Helper()
	rs, err := l.Owned()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range rs {
		out = append(out, r.Key+"="+r.ID)
	}
	return strings.Join(out, " ")
}

func TestLedger(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "runs")
	l := create(t, dir)
	must(t,
		l.Intend(step.Resource{Kind: "x:y", Key: "a", Where: "w", Build: "b", With: map[string]string{"p": "q"}}),
		l.Created("a", "id-a"),
		l.Intend(step.Resource{Kind: "x:y", Key: "b"}),
		l.Intend(step.Resource{Kind: "x:y", Key: "c"}),
		l.Gone("b"),
	)
	if got := owned(t, l); got != "a=id-a c=" {
		t.Errorf("the ledger owns %q, want a=id-a c=", got)
	}
	path := filepath.Join(dir, "run-1.jsonl")
	if _, err := step.OpenLedger(path); !errors.Is(err, step.ErrLive) {
		t.Errorf("while the run goes on: %v", err)
	}
	must(t, l.Close())

	paths, err := step.Ledgers(dir)
	if err != nil || !slices.Equal(paths, []string{path}) {
		t.Fatalf("Ledgers = %q, %v, want %s", paths, err, path)
	}
	l, err = step.OpenLedger(path)
	must(t, err)
	if got := owned(t, l); got != "a=id-a c=" || l.Header.PID != 42 || l.Header.Command != "bake build ." {
		t.Errorf("%s, %+v", got, l.Header)
	}
	rs, _ := l.Owned()
	if rs[0].With["p"] != "q" || rs[0].Where != "w" || rs[0].Build != "b" {
		t.Errorf("%+v", rs[0])
	}
	must(t, l.Gone("a"), l.Gone("c"), l.Close())
	if paths, err := step.Ledgers(dir); err != nil || len(paths) > 0 {
		t.Errorf("a ledger that owns nothing is still there: %v, %v", paths, err)
	}
}

func TestLedgersOfNowhere(t *testing.T) {
	if paths, err := step.Ledgers(filepath.Join(t.TempDir(), "absent")); err != nil || len(paths) > 0 {
		t.Errorf("Ledgers = %q, %v, want none", paths, err)
	}
}

func TestCreateTwice(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir)
	defer l.Close()
	if _, err := step.CreateLedger(dir, step.Header{Run: "run-1"}); err == nil {
		t.Error("two runs share a ledger")
	}
}

// TestTorn truncates the ledger at every byte: the rest must be the state after a whole number of
// lines, to which lines can be appended.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir)
	states := []string{""}
	record := func(err error) {
		must(t, err)
		states = append(states, owned(t, l))
	}
	record(l.Intend(step.Resource{Kind: "x:y", Key: "a"}))
	record(l.Created("a", "id-a"))
	record(l.Intend(step.Resource{Kind: "x:y", Key: "b"}))
	record(l.Gone("a"))
	text, err := os.ReadFile(filepath.Join(dir, "run-1.jsonl"))
	must(t, err, l.Close())

	path := filepath.Join(t.TempDir(), "cut.jsonl")
	for cut := range len(text) + 1 {
		must(t, os.WriteFile(path, text[:cut], 0o600))
		l, err := step.OpenLedger(path)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		lines := bytes.Count(text[:cut], []byte("\n"))
		want := states[max(lines-1, 0)] // the first line is the header
		if got := owned(t, l); got != want {
			t.Fatalf("cut at %d: %q, want %q", cut, got, want)
		}
		must(t, l.Intend(step.Resource{Kind: "x:y", Key: "new"}), l.Close())
		l, err = step.OpenLedger(path)
		must(t, err)
		if got := owned(t, l); !strings.HasSuffix(got, "new=") {
			t.Fatalf("cut at %d, then written to: %q", cut, got)
		}
		must(t, l.Close())
	}
}

// TestDamaged destroys each line in turn. The other lines still count, resources that the lost line
// may have released are doubtful, and the file stays.
func TestDamaged(t *testing.T) {
	lines := []string{
		`{"op":"run","run":"r"}`,
		`{"op":"intend","kind":"x:y","key":"a"}`,
		`{"op":"created","key":"a","id":"1"}`,
		`{"op":"intend","kind":"x:y","key":"b"}`,
		`{"op":"gone","key":"a"}`,
	}
	want := []string{"b=", "b=", "b=", "", "a=1 b="}
	doubted := []string{"", "", "", "", "a b"}
	for i := range lines {
		for _, bad := range []string{strings.Repeat("a", 5<<20), "@@nonsense", "", "\x00\x00", "null", "[]", `{"op":"gone"}`, `{"op":"sell","key":"a"}`} {
			path := filepath.Join(t.TempDir(), "bad.jsonl")
			text := slices.Clone(lines)
			text[i] = bad
			must(t, os.WriteFile(path, []byte(strings.Join(text, "\n")+"\n"), 0o600))
			l, err := step.OpenLedger(path)
			must(t, err)
			if l.Damage == nil || !strings.HasPrefix(l.Damage.Error(), fmt.Sprintf("line %d: ", i+1)) {
				t.Errorf("line %d is %.20q: damage is %v", i+1, bad, l.Damage)
			}
			if got := owned(t, l); got != want[i] {
				t.Errorf("line %d is %q: owned are %q, want %q", i+1, bad, got, want[i])
			}
			var doubt []string
			rs, _ := l.Owned()
			for _, r := range rs {
				if l.Doubtful(r.Key) {
					doubt = append(doubt, r.Key)
				}
				must(t, l.Gone(r.Key))
			}
			if got := strings.Join(doubt, " "); got != doubted[i] {
				t.Errorf("line %d is %q: in doubt are %q, want %q", i+1, bad, got, doubted[i])
			}
			must(t, l.Close())
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		}
	}
}

// The first line contains the version. Ledgers without a version are read; ledgers of newer
// programs are refused and left unchanged.
func TestLedgerVersion(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir)
	defer l.Close()
	text, err := os.ReadFile(filepath.Join(dir, "run-1.jsonl"))
	if must(t, err); !bytes.HasPrefix(text, []byte(`{"op":"run","version":1,`)) {
		t.Errorf("the first line is %s", text)
	}
	const second = "\n{\"op\":\"intend\",\"kind\":\"x:y\",\"key\":\"a\"}\n"
	for first, newer := range map[string]bool{
		`{"op":"run","run":"r"}`:                         false,
		`{"op":"run","version":1,"run":"r"}`:             false,
		`{"op":"run","version":2,"run":"r"}`:             true,
		`{"op":"run","version":2,"run":{"id":"r"}}`:      true,
		`{"op":"start","version":99,"run":["r"],"a":{}}`: true,
	} {
		path := filepath.Join(dir, "of-another.jsonl")
		text := first + second + "a torn li"
		must(t, os.WriteFile(path, []byte(text), 0o600))
		l, err := step.OpenLedger(path)
		if !newer {
			if must(t, err); owned(t, l) != "a=" || l.Damage != nil {
				t.Errorf("%s: owned are %q, damage is %v", first, owned(t, l), l.Damage)
			}
			must(t, l.Close())
			continue
		}
		if !errors.Is(err, step.ErrNewer) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", first, err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("%s: it has become %q", first, got)
		}
	}
}

// A ledger without its first line owns the resources in the other lines, and is damaged.
func TestHeadless(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headless.jsonl")
	must(t, os.WriteFile(path, []byte(`{"op":"intend","kind":"x:y","key":"a"}`+"\n"), 0o600))
	l, err := step.OpenLedger(path)
	must(t, err)
	if got := owned(t, l); got != "a=" || l.Damage == nil {
		t.Errorf("owned are %q, damage is %v", got, l.Damage)
	}
	must(t, l.Close())
}

// TestLedgerHandsOverTogether checks that several resources are released by one line, so that
// either all or none of them are, however much of it was written.
func TestLedgerHandsOverTogether(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir)
	for _, key := range []string{"a", "b", "c"} {
		must(t, l.Intend(step.Resource{Kind: "x:y", Key: key}), l.Created(key, "id-"+key))
	}
	path := filepath.Join(dir, "run-1.jsonl")
	before, err := os.ReadFile(path)
	must(t, err, l.Gone("a", "c"))
	whole, err := os.ReadFile(path)
	must(t, err, l.Close())
	for n := len(before); n <= len(whole); n++ {
		must(t, os.WriteFile(path, whole[:n], 0o600))
		l, err := step.OpenLedger(path)
		must(t, err)
		want := "a=id-a b=id-b c=id-c"
		if n == len(whole) {
			want = "b=id-b"
		}
		if got := owned(t, l); got != want || l.Damage != nil {
			t.Errorf("with %d bytes of the line: %q, %v; want %q", n-len(before), got, l.Damage, want)
		}
		must(t, l.Close())
	}
}

func TestLedgerConcurrently(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			key := fmt.Sprint(i)
			err := errors.Join(l.Intend(step.Resource{Kind: "x:y", Key: key}), l.Created(key, "id"+key))
			if i%2 == 0 {
				err = errors.Join(err, l.Gone(key))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, l.Close())
	l, err := step.OpenLedger(filepath.Join(dir, "run-1.jsonl"))
	must(t, err)
	defer l.Close()
	rs, _ := l.Owned()
	for _, r := range rs {
		if r.ID != "id"+r.Key {
			t.Errorf("%+v", r)
		}
	}
	if len(rs) != 5 {
		t.Errorf("%d are owned, want 5", len(rs))
	}
}

// FuzzLedger checks that a ledger with any content opens, and that a line written to it is there
// the next time.
func FuzzLedger(f *testing.F) {
	f.Add([]byte("{\"op\":\"run\",\"run\":\"r\"}\n{\"op\":\"intend\",\"kind\":\"a:b\",\"key\":\"k\"}\n{\"op\":\"gone\",\"key\":\"k\"}\n"))
	f.Add([]byte("{\"op\":\"created\",\"key\":\"k\",\"id\":\"i\"}\n"))
	f.Add([]byte("null\n[]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "f.jsonl")
		must(t, os.WriteFile(path, text, 0o600))
		l, err := step.OpenLedger(path)
		must(t, err)
		first := owned(t, l)
		must(t, l.Intend(step.Resource{Kind: "x:y", Key: "\x01fresh"}), l.Close())
		l, err = step.OpenLedger(path)
		must(t, err)
		defer l.Close()
		if got := owned(t, l); !strings.HasPrefix(got, first) || !strings.HasSuffix(got, "\x01fresh=") {
			t.Errorf("%q, then %q", first, got)
		}
	})
}
