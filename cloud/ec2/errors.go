package ec2

import (
	"regexp"
	"strings"
	"sync"

	"bake/cloud/wire"
)

// kind is a kind of resource as EC2's errors and ids speak of it.
type kind struct {
	prefix   string // of ids
	code     string // of errors, before ".NotFound" and ".Malformed"
	noun     string
	resource string // types.ResourceType
}

var (
	kindImage     = kind{"ami", "InvalidAMIID", "image", "image"}
	kindInstance  = kind{"i", "InvalidInstanceID", "instance", "instance"}
	kindSnapshot  = kind{"snap", "InvalidSnapshot", "snapshot", "snapshot"}
	kindVolume    = kind{"vol", "InvalidVolume", "volume", "volume"}
	kindGroup     = kind{"sg", "InvalidGroup", "security group", "security-group"}
	kindRule      = kind{"sgr", "InvalidSecurityGroupRuleId", "security group rule", "security-group-rule"}
	kindImport    = kind{"import-ami", "InvalidConversionTaskId", "import task", "import-image-task"}
	kindKey       = kind{"key", "InvalidKeyPair", "key pair", "key-pair"}
	kindVpc       = kind{"vpc", "InvalidVpcID", "vpc", "vpc"}
	kindSubnet    = kind{"subnet", "InvalidSubnetID", "subnet", "subnet"}
	kindSpot      = kind{"sir", "InvalidSpotInstanceRequestID", "spot instance request", "spot-instances-request"}
	kindTemplate  = kind{"lt", "InvalidLaunchTemplateId", "launch template", "launch-template"}
	kindInterface = kind{"eni", "InvalidNetworkInterfaceID", "networkInterface", "network-interface"}
)

var idDigits = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9a-f]{8}|[0-9a-f]{17})$`) })

// check reports an id that cannot be one of k.
func (k kind) check(id string) error {
	digits, ok := strings.CutPrefix(id, k.prefix+"-")
	if ok && idDigits().MatchString(digits) {
		return nil
	}
	return wire.Errorf(k.code+malformed(k), `Invalid id: "%s" (expecting "%s-...")`, id, k.prefix)
}

// malformed is the suffix of a malformed id's code; EC2's snapshots, volumes and
// groups have a longer one.
func malformed(k kind) string {
	switch k {
	case kindSnapshot, kindVolume:
		return "ID.Malformed"
	case kindGroup:
		return "Id.Malformed"
	}
	return ".Malformed"
}

// notFound says that ids, of k, do not exist.
func (k kind) notFound(ids ...string) error {
	list := strings.Join(ids, ", ")
	if len(ids) > 1 {
		switch k {
		case kindImage:
			return wire.Errorf(k.code+".NotFound", "The image ids '[%s]' do not exist", list)
		case kindSnapshot: // EC2 names the first
			return k.notFound(ids[0])
		case kindVolume, kindGroup, kindKey:
			return wire.Errorf(k.code+".NotFound", "The %ss '%s' do not exist", k.noun, list)
		}
		return wire.Errorf(k.code+".NotFound", "The %s IDs '%s' do not exist", k.noun, list)
	}
	switch k {
	case kindImage:
		list = "[" + list + "]"
		return wire.Errorf(k.code+".NotFound", "The image id '%s' does not exist", list)
	case kindSnapshot:
		return wire.Errorf(k.code+".NotFound", "The snapshot '%s' does not exist.", list)
	case kindVolume:
		return wire.Errorf(k.code+".NotFound", "The volume '%s' does not exist.", list)
	case kindGroup:
		return wire.Errorf(k.code+".NotFound", "The security group '%s' does not exist", list)
	case kindKey:
		return wire.Errorf(k.code+".NotFound", "The key pair '%s' does not exist", list)
	}
	return wire.Errorf(k.code+".NotFound", "The %s ID '%s' does not exist", k.noun, list)
}

func invalidValue(format string, args ...any) error {
	return wire.Errorf("InvalidParameterValue", format, args...)
}

func missing(parameter string) error {
	return wire.Errorf("MissingParameter", "The request must contain the parameter %s", parameter)
}
