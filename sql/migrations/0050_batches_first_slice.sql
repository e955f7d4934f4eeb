-- Every slice of a partition has the snapshot that its units were first listed by: which was first does not matter.

alter table backfill.batches drop column first_slice;
