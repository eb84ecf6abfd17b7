package launch

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// userTag is the tag of an image that names its login user.
const userTag = "bake:user"

// publishers are the accounts that publish images, and the login users of those images.
var publishers = []struct{ account, user string }{
	{"136693071363", "admin"},         // Debian
	{"099720109477", "ubuntu"},        // Canonical
	{"137112412989", "ec2-user"},      // Amazon Linux
	{"309956199498", "ec2-user"},      // Red Hat
	{"013907871322", "ec2-user"},      // SUSE
	{"764336703387", "ec2-user"},      // AlmaLinux
	{"792107900819", "rocky"},         // Rocky Linux
	{"125523088429", "fedora"},        // Fedora, and CentOS if the image name begins with it
	{"647457786197", "arch"},          // Arch Linux
	{"782442783595", "ec2-user"},      // FreeBSD
	{"538276064493", "alpine"},        // Alpine Linux
	{"075585003325", "core"},          // Flatcar
	{"427812963091", "root"},          // NixOS
	{"801119661308", "Administrator"}, // Windows
}

// LoginUser returns the login user of an image, according to its tag or its publisher, or
// "" if neither defines one.
func LoginUser(image types.Image) string {
	for _, t := range image.Tags {
		if aws.ToString(t.Key) == userTag && aws.ToString(t.Value) != "" {
			return aws.ToString(t.Value)
		}
	}
	owner := aws.ToString(image.OwnerId)
	if owner == "125523088429" && strings.HasPrefix(aws.ToString(image.Name), "CentOS") {
		return "ec2-user"
	}
	for _, p := range publishers {
		if p.account == owner {
			return p.user
		}
	}
	return ""
}
