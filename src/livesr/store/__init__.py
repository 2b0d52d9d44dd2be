"""What happens to a store after its run: repair it, compute it again, compute what was skipped."""
