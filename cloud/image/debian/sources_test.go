package debian

import (
	"cmp"
	"strings"
	"testing"
	"testing/fstest"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestHostSources(t *testing.T) {
	host := fstest.MapFS{
		"etc/apt/sources.list": {Data: []byte(`# the system
deb http://mirror.example/debian/ bookworm main contrib # comment
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no]	http://mirror.example/security bookworm-security main
`)},
		"etc/apt/sources.list.d/a.list": {Data: []byte("deb https://other.example stable main\n")},
		"etc/apt/sources.list.d/b.sources": {Data: []byte(`Types: deb deb-src
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEXEcE6
Check-Valid-Until: No

Enabled: no
Types: deb
URIs: http://disabled.example
Suites: sid
Components: main

Types: deb-src
URIs: http://source.example
Suites: sid
Components: main
`)},
		"etc/apt/sources.list.d/c.list.disabled": {Data: []byte("deb http://not.example sid main\n")},
	}
	got, err := hostSources(host)
	if err != nil {
		t.Fatal(err)
	}
	block := "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEXEcE6"
	want := []source{
		{URI: "http://mirror.example/debian", Suite: "bookworm", Components: []string{"main", "contrib"}},
		{URI: "http://mirror.example/security", Suite: "bookworm-security", Components: []string{"main"}, SignedBy: "/usr/share/keyrings/debian-archive-keyring.gpg", Expired: true},
		{URI: "https://other.example", Suite: "stable", Components: []string{"main"}},
		{URI: "http://mirror.example/debian", Suite: "trixie", Components: []string{"main"}, SignedBy: block, Expired: true},
		{URI: "http://mirror.example/debian", Suite: "trixie-updates", Components: []string{"main"}, SignedBy: block, Expired: true},
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("sources (-want +got):\n%s", d)
	}

	none, err := hostSources(fstest.MapFS{})
	if err != nil || len(none) != 0 {
		t.Errorf("a host without apt: got %v, %v", none, err)
	}
	_, err = hostSources(fstest.MapFS{"etc/apt/sources.list": {Data: []byte("deb [arch=amd64 http://mirror.example x\n")}})
	if err == nil || !strings.Contains(err.Error(), "/etc/apt/sources.list: ") {
		t.Errorf("unclosed options: error %v must name the file", err)
	}
}

func TestChooseSources(t *testing.T) {
	for name, test := range map[string]struct {
		suite  string // bookworm
		host   string
		mirror string
		want   []string
		err    string
	}{
		"the same release": {
			host: "deb http://m.example/debian bookworm main\ndeb http://s.example/security bookworm-security main\n",
			want: []string{"deb http://m.example/debian bookworm main", "deb http://m.example/debian bookworm-updates main", "deb http://s.example/security bookworm-security main"},
		},
		"another release": {
			host: "deb http://m.example/debian trixie main\ndeb http://s.example/security trixie-security main\n",
			want: []string{"deb http://m.example/debian bookworm main", "deb http://m.example/debian bookworm-updates main", "deb http://s.example/security bookworm-security main"},
		},
		"prefers its own release": {
			host: "deb http://new.example/debian sid main\ndeb http://m.example/debian bookworm main\n",
			want: []string{"deb http://m.example/debian bookworm main", "deb http://m.example/debian bookworm-updates main", "deb http://m.example/debian-security bookworm-security main"},
		},
		"a frozen mirror stays frozen": {
			host: "deb [check-valid-until=no] http://m.example/debian bookworm main\n",
			want: []string{"deb [check-valid-until=no] http://m.example/debian bookworm main", "deb [check-valid-until=no] http://m.example/debian bookworm-updates main", "deb [check-valid-until=no] http://m.example/debian-security bookworm-security main"},
		},
		"passes over others' archives": {
			host: "deb [signed-by=/etc/apt/keyrings/vendor.gpg] http://vendor.example bookworm main\ndeb http://docker.example bookworm stable\ndeb http://pg.example bookworm-pgdg main\ndeb cdrom:[Debian]/ bookworm main\ndeb http://m.example/debian bookworm main\n",
			want: []string{"deb http://m.example/debian bookworm main", "deb http://m.example/debian bookworm-updates main", "deb http://m.example/debian-security bookworm-security main"},
		},
		"explicit mirror": {
			host: "deb http://m.example/debian bookworm main\ndeb http://s.example/security bookworm-security main\n", mirror: "https://x.example/debian/",
			want: []string{"deb https://x.example/debian bookworm main", "deb https://x.example/debian bookworm-updates main", "deb https://x.example/debian-security bookworm-security main"},
		},
		"a host of another distribution": {
			host: "deb http://u.example/ubuntu noble main\ndeb http://u.example/ubuntu noble-security main\n",
			err:  "apt sources list no Debian mirror: set one with -mirror or BAKE_MIRROR, such as debian=http://",
		},
		"no apt": {
			err: "apt sources list no Debian mirror: set one with -mirror or BAKE_MIRROR, such as debian=http://",
		},
		"Ubuntu, all in one tree": {
			suite: "jammy", host: "deb http://u.example/ubuntu/ noble main restricted\ndeb http://s.example/ubuntu noble-security main\ndeb http://m.example/debian bookworm main\n",
			want: []string{"deb http://u.example/ubuntu jammy main universe", "deb http://u.example/ubuntu jammy-updates main universe", "deb http://u.example/ubuntu jammy-security main universe"},
		},
		"Ubuntu on a host of another distribution": {
			suite: "focal", host: "deb http://m.example/debian bookworm main\n",
			err: "apt sources list no Ubuntu mirror: set one with -mirror or BAKE_MIRROR, such as ubuntu=http://",
		},
		"not a URL":    {mirror: "/srv/debian", err: "must begin with http"},
		"no host name": {mirror: "http://", err: "must begin with http"},
	} {
		t.Run(name, func(t *testing.T) {
			host, err := parseOneLine(test.host)
			if err != nil {
				t.Fatal(err)
			}
			suite := cmp.Or(test.suite, "bookworm")
			got, err := distributionOf(suite).chooseSources(host, test.mirror, suite)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, s := range got {
				lines = append(lines, s.Line())
			}
			if d := gocmp.Diff(test.want, lines); d != "" {
				t.Errorf("lines (-want +got):\n%s", d)
			}
		})
	}
}

func TestHostAdmitsExpired(t *testing.T) {
	for text, want := range map[string]bool{
		`Acquire::Check-Valid-Until "false";`:         true,
		"Acquire {\n\tCheck-Valid-Until \"0\";\n};\n": true,
		`Acquire::Check-Valid-Until "true";`:          false,
		`// Acquire::Check-Valid-Until "false";`:      false,
		`# Acquire::Check-Valid-Until "false";`:       false,
		`Acquire::Check-Valid-Until-Not-Me "false";`:  false,
		``: false,
	} {
		if got := hostAdmitsExpired(fstest.MapFS{"etc/apt/apt.conf.d/50x": {Data: []byte(text)}}); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [arch=amd64 signed-by=/x] http://m.example/debian bookworm main # c\n")
	f.Add("Types: deb\nURIs: http://a.example http://b.example\nSuites: bookworm x/\nComponents: main\n")
	f.Add("deb [")
	f.Add("deb a b")
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) ([]source, error){parseOneLine, parseDeb822} {
			list, err := parse(text)
			if err != nil {
				continue
			}
			for _, s := range list {
				if s.URI == "" && !strings.Contains(text, "/") || s.Suite == "" || strings.HasSuffix(s.URI, "/") {
					t.Errorf("%q: got %+v", text, s)
				}
			}
			if chosen, err := distributionOf("bookworm").chooseSources(list, "", "bookworm"); err == nil && !fetchable(chosen[0].URI) {
				t.Errorf("%q: chose %+v", text, chosen)
			}
		}
	})
}
