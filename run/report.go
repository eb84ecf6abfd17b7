package run

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"bake/golden/findings"
	"bake/golden/report"
	"bake/internal/wholefile"
	"bake/step"
)

// Report tells what became of a run, from its log. Documents that are not where they were
// any more are named as missing.
func (s State) Report(run, version string) (*report.Report, error) {
	b := report.New(run, version, document)
	if err := s.Events(run, b.Handle); err != nil {
		return nil, err
	}
	return b.Report(), nil
}

// document reads a document that a log names.
func document(d step.Report) ([]byte, error) {
	info, err := os.Stat(d.Path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > findings.MaxRead:
		return nil, fmt.Errorf("%s is not a file of at most %d MB", d.Path, findings.MaxRead>>20)
	}
	text, err := os.ReadFile(d.Path)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != d.SHA256 {
		return nil, fmt.Errorf("%s is not what it was when the run wrote it", d.Path)
	}
	return text, nil
}

// report writes the report of a run to a directory, for people and for programs.
func (s State) report(run, version, dir string) error {
	r, err := s.Report(run, version)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // whoever may read the directory that it is in may read it
		return err
	}
	return errors.Join(
		wholefile.Write(filepath.Join(dir, "report.html"), 0o644, func(f *os.File) error { return r.HTML(f) }),
		wholefile.Write(filepath.Join(dir, "report.json"), 0o644, func(f *os.File) error { return r.JSON(f) }),
	)
}
