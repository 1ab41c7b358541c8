"""Migration: converts configurations of Auditbeat."""
