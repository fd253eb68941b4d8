// Image writes an OCI image layout, as one tar, from statically linked programs.
//
//	image -name NAME -out FILE PROGRAM...
//
// It is what a Dockerfile `FROM scratch` with one COPY a program, USER 65532:65532 and the first
// program as ENTRYPOINT would give, without needing Docker. The same programs give the same bytes:
// entries are in a fixed order and carry no time, so that an unchanged image needn't be loaded again.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

const (
	programsFolder = "usr/local/bin"
	user           = "65532:65532"

	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

var epoch = time.Unix(0, 0).UTC()

var architectures = map[elf.Machine]string{
	elf.EM_X86_64:  "amd64",
	elf.EM_AARCH64: "arm64",
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type blob struct {
	descriptor descriptor
	content    []byte
}

func newBlob(mediaType string, content []byte) blob {
	sum := sha256.Sum256(content)
	return blob{
		descriptor: descriptor{
			MediaType: mediaType,
			Digest:    "sha256:" + hex.EncodeToString(sum[:]),
			Size:      len(content),
		},
		content: content,
	}
}

func newJSONBlob(mediaType string, value any) (blob, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return blob{}, err
	}
	return newBlob(mediaType, content), nil
}

func main() {
	name := flag.String("name", "", "the image's name, such as annulus:dev")
	out := flag.String("out", "", "the tar to write")
	canonical := flag.Bool("canonical", false, "only print the name in full, as a container runtime knows it")
	flag.Parse()
	if *canonical {
		full, err := canonicalName(*name)
		exitOn(err)
		fmt.Println(full)
		return
	}
	if *name == "" || *out == "" || flag.NArg() == 0 {
		exitOn(errors.New("usage: image -name NAME -out FILE PROGRAM..."))
	}
	exitOn(write(*name, *out, flag.Args()))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func write(name, out string, programs []string) error {
	fullName, err := canonicalName(name)
	if err != nil {
		return err
	}
	architecture, err := commonArchitecture(programs)
	if err != nil {
		return err
	}
	layer, err := layerOf(programs)
	if err != nil {
		return err
	}
	layerBlob := newBlob(layerType, layer)
	config, err := newJSONBlob(configType, map[string]any{
		"created":      epoch.Format(time.RFC3339),
		"architecture": architecture,
		"os":           "linux",
		"config": map[string]any{
			"User":       user,
			"Env":        []string{"PATH=/" + programsFolder},
			"Entrypoint": []string{"/" + programsFolder + "/" + filepath.Base(programs[0])},
		},
		// The layer isn't compressed, so its digest is its diff ID as well.
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{layerBlob.descriptor.Digest}},
		"history": []any{map[string]any{"created": epoch.Format(time.RFC3339)}},
	})
	if err != nil {
		return err
	}
	manifest, err := newJSONBlob(manifestType, map[string]any{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        config.descriptor,
		"layers":        []descriptor{layerBlob.descriptor},
	})
	if err != nil {
		return err
	}
	manifest.descriptor.Annotations = map[string]string{
		"io.containerd.image.name":          fullName,
		"org.opencontainers.image.ref.name": fullName[strings.LastIndex(fullName, ":")+1:],
	}
	index, err := newJSONBlob(indexType, map[string]any{
		"schemaVersion": 2,
		"mediaType":     indexType,
		"manifests":     []descriptor{manifest.descriptor},
	})
	if err != nil {
		return err
	}
	return writeLayout(out, index.content, []blob{manifest, config, layerBlob})
}

// canonicalName spells a name out: "annulus:dev" is "docker.io/library/annulus:dev" to a runtime.
func canonicalName(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, " \t\n@") || strings.ToLower(name) != name && !strings.Contains(name, ":") {
		return "", fmt.Errorf("%q is not an image name such as annulus:dev", name)
	}
	if strings.LastIndex(name, ":") <= strings.LastIndex(name, "/") {
		return "", fmt.Errorf("%q has no tag: write one, such as %s:dev (a fixed tag; latest would make Kubernetes pull it)", name, name)
	}
	first, _, hasFolder := strings.Cut(name, "/")
	switch {
	case !hasFolder:
		return "docker.io/library/" + name, nil
	case strings.ContainsAny(first, ".:") || first == "localhost":
		return name, nil
	default:
		return "docker.io/" + name, nil
	}
}

// commonArchitecture refuses programs that could not start in an image with nothing else in it.
func commonArchitecture(programs []string) (string, error) {
	common := ""
	for _, program := range programs {
		file, err := elf.Open(program)
		if err != nil {
			return "", fmt.Errorf("%s: not a Linux program: %w", program, err)
		}
		architecture, known := architectures[file.Machine]
		dynamic := false
		for _, segment := range file.Progs {
			dynamic = dynamic || segment.Type == elf.PT_INTERP
		}
		file.Close()
		switch {
		case dynamic:
			return "", fmt.Errorf("%s: dynamically linked, but the image has no libraries: build it for a musl target or with -C target-feature=+crt-static", program)
		case !known:
			return "", fmt.Errorf("%s: unknown architecture", program)
		case common != "" && common != architecture:
			return "", fmt.Errorf("%s: built for %s, the others for %s", program, architecture, common)
		}
		common = architecture
	}
	return common, nil
}

func layerOf(programs []string) ([]byte, error) {
	var layer bytes.Buffer
	writer := tar.NewWriter(&layer)
	folder := ""
	for _, part := range strings.Split(programsFolder, "/") {
		folder += part + "/"
		if err := writer.WriteHeader(header(folder, tar.TypeDir, 0o755, 0)); err != nil {
			return nil, err
		}
	}
	sorted := append([]string(nil), programs...)
	sort.Slice(sorted, func(i, j int) bool { return filepath.Base(sorted[i]) < filepath.Base(sorted[j]) })
	for i, program := range sorted {
		base := filepath.Base(program)
		if i > 0 && base == filepath.Base(sorted[i-1]) {
			return nil, fmt.Errorf("two programs are called %s", base)
		}
		content, err := os.ReadFile(program)
		if err != nil {
			return nil, err
		}
		if err := writeEntry(writer, programsFolder+"/"+base, 0o755, content); err != nil {
			return nil, err
		}
	}
	return layer.Bytes(), writer.Close()
}

func writeLayout(out string, index []byte, blobs []blob) error {
	// Written beside its place and renamed, so that an interrupted run leaves no half an image.
	file, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	writer := tar.NewWriter(file)
	err = errors.Join(
		writeEntry(writer, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		writeEntry(writer, "index.json", 0o644, index),
	)
	sort.Slice(blobs, func(i, j int) bool { return blobs[i].descriptor.Digest < blobs[j].descriptor.Digest })
	for _, blob := range blobs {
		path := "blobs/" + strings.Replace(blob.descriptor.Digest, ":", "/", 1)
		err = errors.Join(err, writeEntry(writer, path, 0o644, blob.content))
	}
	if err := errors.Join(err, writer.Close(), file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), out)
}

func writeEntry(writer *tar.Writer, name string, mode int64, content []byte) error {
	if err := writer.WriteHeader(header(name, tar.TypeReg, mode, len(content))); err != nil {
		return err
	}
	_, err := io.Copy(writer, bytes.NewReader(content))
	return err
}

func header(name string, kind byte, mode int64, size int) *tar.Header {
	return &tar.Header{
		Name: name, Typeflag: kind, Mode: mode, Size: int64(size), ModTime: epoch, Format: tar.FormatUSTAR,
	}
}
