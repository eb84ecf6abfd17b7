package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// pluginSystems are the systems for which the script command release builds plugins.
func pluginSystems() []string {
	all := []string{runtime.GOOS + "_" + runtime.GOARCH, "linux_amd64", "darwin_arm64", "windows_amd64"}
	slices.Sort(all)
	return slices.Compact(all)
}

// pluginScript is a plugin that can only describe itself.
func pluginScript(name, version string) string {
	return fmt.Sprintf(`#!/bin/sh
# %s
echo '{"version":"%s","sdk_version":"0.6.0","api_version":"x5.0","builders":["-packer-default-plugin-name-","two"],"post_processors":[],"provisioners":[],"datasources":[],"protocol_version":"v2"}'
`, name, version)
}

// release is the script command "release DIR SOURCE VERSION": it publishes a release of a plugin
// in a directory with the layout of 'bake plugins mirror'.
func release(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: release dir source version")
	}
	version := args[2]
	product := "packer-plugin-" + path.Base(args[1])
	home := filepath.Join(ts.MkAbs(args[0]), filepath.FromSlash(path.Dir(args[1])), product)
	dir := filepath.Join(home, version)
	ts.Check(os.MkdirAll(dir, 0o755))
	prefix := filepath.Join(dir, product+"_"+version+"_")
	var sums strings.Builder
	for _, system := range pluginSystems() {
		inside := product + "_v" + version + "_x5.0_" + system
		if strings.HasPrefix(system, "windows") {
			inside += ".exe"
		}
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		w, err := z.Create(inside)
		ts.Check(err)
		_, err = w.Write([]byte(pluginScript(args[1], version)))
		ts.Check(errors.Join(err, z.Close(), os.WriteFile(prefix+system+".zip", b.Bytes(), 0o644)))
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b.Bytes()), filepath.Base(prefix+system+".zip"))
	}
	index := struct {
		Versions map[string]any `json:"versions"`
	}{map[string]any{}}
	text, err := os.ReadFile(filepath.Join(home, "index.json"))
	if err == nil {
		err = json.Unmarshal(text, &index)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	ts.Check(err)
	index.Versions[version] = map[string]string{}
	text, err = json.Marshal(index)
	ts.Check(errors.Join(err, os.WriteFile(filepath.Join(home, "index.json"), text, 0o644),
		os.WriteFile(prefix+"SHA256SUMS", []byte(sums.String()), 0o644),
		os.WriteFile(prefix+"manifest.json", []byte(`{"version":"1","metadata":{"protocol_version":"5.0"}}`), 0o644)))
}

// serve is the script command "serve VARIABLE DIR": it sets a variable to the URL of a server for
// the files in a directory, which also is a proxy for them.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: serve variable dir")
	}
	s := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[1]))))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// stall is the script command "stall VARIABLE FILE": it sets a variable to the URL of a
// server that creates a file on the first request, and never answers.
func stall(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: stall variable file")
	}
	path := ts.MkAbs(args[1])
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = os.WriteFile(path, nil, 0o600) // without it, the script does not end
		_, _ = io.Copy(io.Discard, r.Body) // otherwise the end of the client is not noticed
		<-r.Context().Done()
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}
