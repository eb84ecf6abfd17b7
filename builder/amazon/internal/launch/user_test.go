package launch

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func TestLoginUser(t *testing.T) {
	for want, image := range map[string]types.Image{
		"":         {OwnerId: new("123456789012"), Name: new("mine")},
		"admin":    {OwnerId: new("136693071363")},
		"ubuntu":   {OwnerId: new("099720109477")},
		"ec2-user": {OwnerId: new("125523088429"), Name: new("CentOS Stream 9 x86_64")},
		"fedora":   {OwnerId: new("125523088429"), Name: new("Fedora-Cloud-Base")},
		"core":     {OwnerId: new("136693071363"), Tags: []types.Tag{{Key: new("bake:user"), Value: new("core")}}},
	} {
		if got := LoginUser(image); got != want {
			t.Errorf("%v: got %q, want %q", image, got, want)
		}
	}
}

func TestUserData(t *testing.T) {
	for in, want := range map[string]string{
		"":                  "",
		"#!/bin/sh\necho\n": "IyEvYmluL3NoCmVjaG8K",
		"aGVsbG8=":          "aGVsbG8=",
		"word":              "word", // four letters are valid base64
	} {
		if got, err := (&Options{UserData: in}).userData(); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}
