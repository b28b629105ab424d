package main

import (
	"fmt"
	"os"
)

// privateFile is a file in the making that only its owner can read. It takes
// its place whole or not at all.
type privateFile struct {
	path string
	file *os.File
}

// startPrivate makes sure that the file can be written.
func startPrivate(path string) (*privateFile, error) {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return &privateFile{path, file}, nil
}

func (p *privateFile) discard() {
	p.file.Close()
	_ = os.Remove(p.file.Name())
}

// finish writes the text and puts the file into its place.
func (p *privateFile) finish(text string) error {
	_, err := p.file.WriteString(text)
	if err == nil {
		err = p.file.Sync()
	}
	if closeErr := p.file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(p.file.Name(), p.path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", p.path, err)
	}
	return nil
}

func writePrivate(path, text string) error {
	file, err := startPrivate(path)
	if err != nil {
		return err
	}
	return file.finish(text)
}
