package main

import (
	"crypto/rand"
	"io"
	"net/http"
	"sync"
)

// service stands for the organization's vault. It stores one value in memory.
type service struct {
	mu   sync.Mutex
	data []byte
	tag  string // "" where nothing is stored; random, so that no two states share one
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSize))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := r.Header.Get("If-Match"); m != "" && m != s.tag || r.Header.Get("If-None-Match") == "*" && s.tag != "" {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	switch {
	case r.Method == http.MethodPut:
		s.data, s.tag = body, `"`+rand.Text()+`"`
		w.Header().Set("ETag", s.tag)
		w.WriteHeader(http.StatusNoContent)
	case s.tag == "":
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		s.data, s.tag = nil, ""
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("ETag", s.tag)
		w.Write(s.data)
	}
}
