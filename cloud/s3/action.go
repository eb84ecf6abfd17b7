package s3

import (
	"net/http"
	"strings"
)

// Actions returns S3's names of the supported actions.
func Actions() []string {
	return []string{
		"ListBuckets", "CreateBucket", "HeadBucket", "DeleteBucket", "GetBucketLocation", "ListObjects", "ListObjectsV2", "ListMultipartUploads",
		"GetObject", "HeadObject", "PutObject", "DeleteObject", "GetObjectTagging",
		"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload", "ListParts",
	}
}

// Action returns S3's name of the action of a request; empty if it is not supported.
func Action(r *http.Request) string {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	query := r.URL.Query()
	kinds := map[string]string{http.MethodGet: "GetObject", http.MethodHead: "HeadObject", http.MethodPut: "PutObject", http.MethodDelete: "DeleteObject"}
	switch {
	case bucket == "":
		kinds = map[string]string{http.MethodGet: "ListBuckets"}
	case key == "":
		kinds = map[string]string{http.MethodPut: "CreateBucket", http.MethodHead: "HeadBucket", http.MethodDelete: "DeleteBucket", http.MethodGet: "ListObjects"}
		switch {
		case query.Has("location"):
			kinds[http.MethodGet] = "GetBucketLocation"
		case query.Has("uploads"):
			kinds[http.MethodGet] = "ListMultipartUploads"
		case query.Get("list-type") == "2":
			kinds[http.MethodGet] = "ListObjectsV2"
		}
	case query.Has("uploads"):
		kinds = map[string]string{http.MethodPost: "CreateMultipartUpload"}
	case query.Has("tagging"):
		kinds = map[string]string{http.MethodGet: "GetObjectTagging"}
	case query.Has("uploadId"):
		kinds = map[string]string{http.MethodPut: "UploadPart", http.MethodPost: "CompleteMultipartUpload", http.MethodDelete: "AbortMultipartUpload", http.MethodGet: "ListParts"}
	}
	return kinds[r.Method]
}
