package image

import (
	"runtime"
	"slices"
	"strings"
	"time"

	"bake/cloud/lazyregexp"
)

// publisher is an account that publishes images on EC2.
type publisher struct {
	Name, Owner string
	Alias       string // the account's alias on EC2
	RootDevice  string // root device name of its images
}

// publishers returns well-known accounts that templates use as owners, those of releases first.
// Their ids and aliases are those that DescribeImages returns.
func publishers() []publisher {
	return []publisher{
		{"Debian", debianOwner, "amazon", "/dev/xvda"},
		{"Canonical", canonical, "amazon", "/dev/sda1"},
		{"Amazon", "137112412989", "amazon", "/dev/xvda"},
		{"Red Hat", "309956199498", "amazon", "/dev/sda1"},
		{"Rocky Linux", "792107900819", "", "/dev/sda1"},
		{"AlmaLinux", "764336703387", "", "/dev/sda1"},
		{"Fedora and CentOS", fedoraOwner, "", "/dev/sda1"},
		{"SUSE", "013907871322", "amazon", "/dev/sda1"},
		{"Amazon ECS", "591542846629", "amazon", "/dev/xvda"},
		{"Microsoft", "801119661308", "amazon", "/dev/sda1"},
		{"AWS Marketplace", "679593333241", "aws-marketplace", "/dev/sda1"},
	}
}

const (
	debianOwner = "136693071363"
	canonical   = "099720109477"
	fedoraOwner = "125523088429"
)

// publisherOf returns the publisher with that account id. For unknown accounts, only the id is set.
func publisherOf(owner string) publisher {
	for _, p := range publishers() {
		if p.Owner == owner {
			return p
		}
	}
	return publisher{Owner: owner}
}

// release is a release of a distribution as its publisher offers it on EC2. All of its images have
// the content of one base, with the packages of the day on which the base was made.
type release struct {
	ID    string // name of the base
	Title string
	Owner string
	User  string // login user
	Arch  string // GOARCH
	Suite string // of the archive that the base is made from; empty if it is made from a container image

	VolumeType string
	Size       int32 // of the root volume, in GiB
	Ephemeral  int   // number of instance stores in the images' mapping
	BootMode   string
	IMDS       string        // ImdsSupport
	Lifetime   time.Duration // time after which an image that is not the newest is deprecated; 0 means never

	Series []series
}

// series is a sequence of images of a release whose names differ only in the version. Its strings
// may contain {version}, {arch} for GOARCH (which Debian also uses), {machine} for EC2's name of
// the architecture, and {uname} for that of uname(1).
type series struct {
	Name, Description string
	Versions          []string // versions of real images, oldest first; each contains its date
	Parameters        []string // Systems Manager parameters that name the image of a version
	Current           []string // Systems Manager parameters that name the newest image
}

const year = 365 * 24 * time.Hour

// releases returns the releases that this package can make, those for the host's architecture
// first. The ids of the others end with the architecture.
func releases() []release {
	all := releasesFor(runtime.GOARCH)
	for _, arch := range []string{"amd64", "arm64"} {
		if arch == runtime.GOARCH {
			continue
		}
		for _, r := range releasesFor(arch) {
			r.ID += "-" + arch
			r.Title += " for " + EC2Arch(arch)
			all = append(all, r)
		}
	}
	return all
}

// releasesFor returns the releases for an architecture, a GOARCH value. Their attributes are those
// that DescribeImages returns for the real images.
func releasesFor(arch string) []release {
	all := []release{
		ubuntuRelease("20.04", "focal", "gp2", "", "", "20230517", "20250610"),
		ubuntuRelease("22.04", "jammy", "gp2", "uefi-preferred", "", "20250305", "20250516", "20251015", "20251212"),
		ubuntuRelease("24.04", "noble", "gp3", "uefi-preferred", "v2.0", "20250305", "20250610", "20250821"),
		debianRelease("11", "bullseye", "", "20250814-2204"),
		debianRelease("12", "bookworm", "", "20240717-1811", "20241201-1948", "20250316-2053", "20250814-2204", "20251006-2257"),
		debianRelease("13", "trixie", "uefi-preferred", "20250814-2204", "20251117-2299"),
		amazonLinux2023(),
		{
			ID: "almalinux-9", Title: "AlmaLinux 9", Owner: "764336703387", User: "ec2-user", VolumeType: "gp3", Size: 10, BootMode: "uefi-preferred",
			Series: []series{{Name: "AlmaLinux OS {version} {uname}", Description: "AlmaLinux OS {version} {uname}", Versions: []string{"9.4.20240805", "9.7.20251118"}}},
		},
		{
			ID: "rocky-9", Title: "Rocky Linux 9", Owner: "792107900819", User: "rocky", VolumeType: "gp3", Size: 10, BootMode: "uefi-preferred",
			Series: []series{{Name: "Rocky-9-EC2-Base-{version}.{uname}", Description: "Rocky-9-EC2-Base-{version}.{uname}", Versions: []string{"9.5-20241118.0", "9.6-20250531.0"}}},
		},
		fedoraRelease("42", "20250415.0"),
		fedoraRelease("43", "20260226.0", "20260305.0"),
	}
	for i := range all {
		all[i].Arch = arch
	}
	return all
}

func fedoraRelease(number string, versions ...string) release {
	name := "Fedora-Cloud-Base-AmazonEC2.{uname}-" + number + "-{version}"
	return release{
		ID: "fedora-" + number, Title: "Fedora " + number, Owner: fedoraOwner, User: "fedora", VolumeType: "gp3", Size: 5, BootMode: "uefi-preferred",
		Series: []series{{Name: name, Description: name, Versions: versions}},
	}
}

func debianRelease(number, suite, bootMode string, versions ...string) release {
	parameters := "/aws/service/debian/release/" + number
	return release{
		ID: "debian-" + number, Title: "Debian " + number, Owner: debianOwner, User: "admin", Suite: suite,
		VolumeType: "gp3", Size: 8, BootMode: bootMode,
		Series: []series{{
			Name: "debian-" + number + "-{arch}-{version}", Description: "Debian " + number + " ({version})", Versions: versions,
			Parameters: []string{parameters + "/{version}/{arch}"}, Current: []string{parameters + "/latest/{arch}"},
		}},
	}
}

func ubuntuRelease(number, suite, volume, bootMode, imds string, versions ...string) release {
	prefix := map[string]string{"gp2": "hvm-ssd", "gp3": "hvm-ssd-gp3"}[volume]
	var all []series
	for _, variant := range []struct{ folder, flavor, product, image string }{
		{"ubuntu", "server", "server", "image"}, {"ubuntu-minimal", "minimal", "server-minimal", "minimal image"},
	} {
		s := series{
			Name:        variant.folder + "/images/" + prefix + "/ubuntu-" + suite + "-" + number + "-{arch}-" + variant.flavor + "-{version}",
			Description: "Canonical, Ubuntu, " + number + ", {arch} " + suite + " " + variant.image, Versions: versions,
		}
		for _, release := range []string{number, suite} {
			path := "/aws/service/canonical/ubuntu/" + variant.product + "/" + release + "/stable/"
			end := "/{arch}/hvm/ebs-" + volume + "/ami-id"
			s.Parameters = append(s.Parameters, path+"{version}"+end)
			s.Current = append(s.Current, path+"current"+end)
		}
		all = append(all, s)
	}
	return release{
		ID: "ubuntu-" + number, Title: "Ubuntu " + number, Owner: canonical, User: "ubuntu", Suite: suite,
		VolumeType: volume, Size: 8, Ephemeral: 2, BootMode: bootMode, IMDS: imds, Lifetime: 2 * year, Series: all,
	}
}

func amazonLinux2023() release {
	const parameters = "/aws/service/ami-amazon-linux-latest/al2023-ami-"
	of := func(variant, kernel string, current []string, versions ...string) series {
		name := "al2023-ami-" + variant + "{version}-kernel-" + kernel + "-{machine}"
		return series{Name: name, Description: "Amazon Linux 2023 AMI {version} {machine} HVM kernel-" + kernel, Versions: versions, Current: current}
	}
	return release{
		ID: "al2023", Title: "Amazon Linux 2023", Owner: "137112412989", User: "ec2-user",
		VolumeType: "gp3", Size: 8, BootMode: "uefi-preferred", IMDS: "v2.0", Lifetime: 90 * 24 * time.Hour,
		Series: []series{
			of("", "6.1", []string{parameters + "kernel-default-{machine}", parameters + "kernel-6.1-{machine}"}, "2023.6.20241121.0", "2023.8.20250804.0", "2023.9.20251117.1"),
			of("", "6.18", []string{parameters + "kernel-6.18-{machine}"}, "2023.12.20260727.0"),
			of("minimal-", "6.1", []string{parameters + "minimal-kernel-default-{machine}", parameters + "minimal-kernel-6.1-{machine}"}, "2023.9.20251117.1"),
		},
	}
}

// findRelease returns the release whose base has that id.
func findRelease(id string) (release, bool) {
	all := releases()
	i := slices.IndexFunc(all, func(r release) bool { return r.ID == id })
	if i < 0 {
		return release{}, false
	}
	return all[i], true
}

// publications returns the images of a release.
func (r release) publications() []Publication {
	var list []Publication
	for n, s := range r.Series {
		for i, version := range s.Versions {
			p := r.publication(n, version)
			p.Parameters = r.fill(s.Parameters, version)
			if i == len(s.Versions)-1 {
				p.Parameters = append(p.Parameters, r.fill(s.Current, version)...)
			} else if r.Lifetime > 0 {
				p.Deprecated = p.CreationDate.Add(r.Lifetime)
			}
			list = append(list, p)
		}
	}
	return list
}

// publication returns the image of a version in series n of the release.
func (r release) publication(n int, version string) Publication {
	from := publisherOf(r.Owner)
	texts := r.fill([]string{r.Series[n].Name, r.Series[n].Description}, version)
	return Publication{
		Owner: r.Owner, OwnerAlias: from.Alias, Name: texts[0], Description: texts[1], Architecture: EC2Arch(r.Arch),
		RootDeviceName: from.RootDevice, VolumeType: r.VolumeType, Size: r.Size, Ephemeral: r.Ephemeral, BootMode: r.BootMode, ImdsSupport: r.IMDS,
		// Among images with the same date, those of earlier series are newer.
		CreationDate: dateOf(version).Add(6*time.Hour - time.Duration(n)*time.Minute),
		LoginUser:    r.User, Base: r.ID,
	}
}

// fill replaces the placeholders in the strings of a series.
func (r release) fill(texts []string, version string) []string {
	words := strings.NewReplacer("{version}", version, "{arch}", r.Arch, "{machine}", EC2Arch(r.Arch), "{uname}", unameArch(r.Arch))
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = words.Replace(text)
	}
	return out
}

// unameArch returns the kernel's name for a GOARCH value.
func unameArch(arch string) string {
	if arch == "arm64" {
		return "aarch64"
	}
	return EC2Arch(arch)
}

var datePattern = lazyregexp.New(`\d{8}`)

// dateOf returns the date in the version of an image; zero if there is none.
func dateOf(version string) time.Time {
	day, err := time.Parse("20060102", datePattern.Get().FindString(version))
	if err != nil {
		return time.Time{}
	}
	return day
}
