package contents

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"

	"bake/internal/lazyregexp"
)

// Format is an SBOM format.
type Format string

// The formats that are written.
const (
	CycloneDX Format = "cyclonedx" // 1.6, JSON
	SPDX      Format = "spdx"      // 2.3, JSON
)

// Extension returns the file name extension of the format.
func (f Format) Extension() string {
	if f == SPDX {
		return ".spdx.json"
	}
	return ".cdx.json"
}

// Document holds the metadata of an SBOM.
type Document struct {
	Name    string    // of the subject; empty: the operating system's
	Time    time.Time // when the subject was examined
	Version string    // of bake
}

// Write writes the contents as a document. The same contents and d make the same bytes.
func (c *Contents) Write(w io.Writer, format Format, d Document) error {
	d.Name = cmp.Or(d.Name, c.OS.Name, c.OS.ID, "machine")
	d.Time = d.Time.UTC().Truncate(time.Second)
	switch format {
	case CycloneDX:
		return c.cycloneDX(w, d)
	case SPDX:
		return c.spdx(w, d)
	}
	return fmt.Errorf("%q is not an SBOM format; use %s or %s", format, CycloneDX, SPDX)
}

// id returns an identifier for a document that depends only on its content.
func (c *Contents) id(format Format, d Document) (uuid.UUID, error) {
	text, err := json.Marshal(struct {
		Format   Format
		Document Document
		Contents *Contents
	}{format, d, c})
	sum := sha256.Sum256(text)
	return uuid.NewHash(sha256.New(), uuid.NameSpaceURL, sum[:], 5), err
}

var notOfIDs = lazyregexp.New(`[^A-Za-z0-9.-]+`)

// none is SPDX's value for unknown information.
const none = "NOASSERTION"

// spdx writes SPDX 2.3.
func (c *Contents) spdx(w io.Writer, d Document) error {
	id, err := c.id(SPDX, d)
	if err != nil {
		return err
	}
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: d.Name,
		DocumentNamespace: "https://spdx.org/spdxdocs/" + strings.Trim(notOfIDs.Get().ReplaceAllString(d.Name, "-"), "-") + "-" + id.String(),
		DocumentComment:   strings.Join(c.Problems, "\n"),
		CreationInfo: &spdx.CreationInfo{
			Created:  d.Time.Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: strings.TrimSuffix("bake-"+d.Version, "-")}},
		},
	}
	root := &spdx.Package{
		PackageName: d.Name, PackageSPDXIdentifier: "OperatingSystem", PackageVersion: c.OS.VersionID, PackageDownloadLocation: none,
		PackageLicenseConcluded: none, PackageLicenseDeclared: none, PackageCopyrightText: none, PrimaryPackagePurpose: "OPERATING_SYSTEM",
	}
	if c.OS.CPE != "" {
		kind := "cpe22Type"
		if strings.HasPrefix(c.OS.CPE, "cpe:2.3:") {
			kind = "cpe23Type"
		}
		root.PackageExternalReferences = []*spdx.PackageExternalReference{{Category: "SECURITY", RefType: kind, Locator: c.OS.CPE}}
	}
	doc.Packages = append(doc.Packages, root)
	relate := func(a common.ElementID, how string, b common.ElementID) {
		doc.Relationships = append(doc.Relationships, &spdx.Relationship{
			RefA: common.MakeDocElementID("", string(a)), RefB: common.MakeDocElementID("", string(b)), Relationship: how,
		})
	}
	relate("DOCUMENT", "DESCRIBES", root.PackageSPDXIdentifier)
	others := map[string]string{} // names of licenses, by reference
	for _, p := range c.Packages {
		one := c.spdxPackage(p, others)
		doc.Packages = append(doc.Packages, one)
		relate(root.PackageSPDXIdentifier, "CONTAINS", one.PackageSPDXIdentifier)
	}
	for ref, name := range others {
		doc.OtherLicenses = append(doc.OtherLicenses, &spdx.OtherLicense{LicenseIdentifier: ref, LicenseName: name, ExtractedText: name})
	}
	sort.Slice(doc.OtherLicenses, func(i, j int) bool {
		return doc.OtherLicenses[i].LicenseIdentifier < doc.OtherLicenses[j].LicenseIdentifier
	})
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// spdxPackage returns the entry of a package, and adds its licenses that SPDX does not list to
// others.
func (c *Contents) spdxPackage(p Package, others map[string]string) *spdx.Package {
	purl := p.URL(c.OS)
	sum := sha256.Sum256([]byte(purl))
	one := &spdx.Package{
		PackageName: p.Name, PackageVersion: p.Version, PackageDownloadLocation: none, PackageCopyrightText: none,
		PackageSPDXIdentifier:     common.ElementID(fmt.Sprintf("%s-%s-%x", p.Kind, notOfIDs.Get().ReplaceAllString(p.Name, "-"), sum[:6])),
		PackageLicenseConcluded:   none,
		PackageLicenseDeclared:    cmp.Or(spdxExpression(p.Licenses, others), none),
		PackageExternalReferences: []*spdx.PackageExternalReference{{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: purl}},
	}
	if p.Epoch != "" {
		one.PackageVersion = p.Epoch + ":" + p.Version
	}
	if p.Supplier != "" {
		one.PackageSupplier = &common.Supplier{SupplierType: "Organization", Supplier: p.Supplier}
	}
	if len(p.Paths) > 0 {
		one.PackageSourceInfo = "found at /" + strings.Join(p.Paths, ", /")
	}
	return one
}

// spdxExpression joins licenses to an expression. A license that is not in SPDX's list
// gets a reference, which is recorded in others.
func spdxExpression(list []string, others map[string]string) string {
	var parts []string
	for _, l := range list {
		switch {
		case licenses.load().ids[l]:
		case isSPDX(l):
			if len(list) > 1 {
				l = "(" + l + ")"
			}
		default:
			name := l
			l = "LicenseRef-" + strings.Trim(notOfIDs.Get().ReplaceAllString(name, "-"), "-")
			if was, taken := others[l]; taken && was != name || l == "LicenseRef-" || len(l) > 80 {
				sum := sha256.Sum256([]byte(name))
				l = "LicenseRef-" + strconv.FormatUint(uint64(sum[0])<<32|uint64(sum[1])<<24|uint64(sum[2])<<16|uint64(sum[3])<<8|uint64(sum[4]), 16)
			}
			others[l] = name
		}
		parts = append(parts, l)
	}
	return strings.Join(parts, " AND ")
}

// Recognize determines the format of a document from its first fields. Any other format
// is an error.
func Recognize(text []byte) (Format, error) {
	var d struct {
		BOMFormat   string `json:"bomFormat"`
		SpecVersion string `json:"specVersion"`
		SPDXVersion string `json:"spdxVersion"`
		SPDXID      string `json:"SPDXID"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), &d); err != nil {
		return "", fmt.Errorf("it is not JSON: %w", err)
	}
	switch {
	case d.BOMFormat == cdxFormat && d.SpecVersion != "":
		return CycloneDX, nil
	case strings.HasPrefix(d.SPDXVersion, "SPDX-") && d.SPDXID == "SPDXRef-DOCUMENT":
		return SPDX, nil
	}
	return "", errors.New("it is neither CycloneDX nor SPDX: it has no bomFormat with a specVersion, and no spdxVersion with an SPDXID")
}
