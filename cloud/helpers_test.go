package cloud_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"bake/cloud/cloudtest"
)

// writeDisk writes a file to the disk of a machine that has been started before.
func writeDisk(s *cloudtest.Server, id, name string) error {
	specs := s.Driver.Specs()
	for _, spec := range specs {
		if spec.ID == id {
			return os.WriteFile(filepath.Join(spec.Dir, "upper", name), []byte("content"), 0o644)
		}
	}
	return fmt.Errorf("no machine %s was started", id)
}

func awaitImage(t *testing.T, client *ec2.Client, id string) types.Image {
	t.Helper()
	var img types.Image
	eventually(t, id+" available", func() bool {
		out, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		img = out.Images[0]
		return img.State != types.ImageStatePending
	})
	if img.State != types.ImageStateAvailable {
		t.Fatalf("%s is %s: %v", id, img.State, *img.StateReason.Message)
	}
	return img
}

// code returns the API error code of an error, or "" for none.
func code(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return "not of the API: " + err.Error()
}

// requestData returns launch template data that launches an image.
func requestData(ami string) *types.RequestLaunchTemplateData {
	return &types.RequestLaunchTemplateData{ImageId: &ami, InstanceType: types.InstanceTypeT3Micro}
}
